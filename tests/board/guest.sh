#!/usr/bin/env bash
# Boots the emulated board, sees DIR there as /share, runs `sh -c COMMAND` as root in it, prints its output, exits by its status.
#
#   tests/board/guest.sh DIR COMMAND...
#   tests/board/guest.sh shell [DIR]      the serial console on this terminal (root, no password; `poweroff` ends it)
#
# BOARD_CPU (cortex-a72; cortex-a76 has dotprod, max has i8mm), BOARD_CORES (2), BOARD_MEMORY (1024 MB), BOARD_TIMEOUT (1200 s),
# BOARD_DISK: a disk of the board's own (a copy of the image's root.img), which keeps what is written to it.
# In the guest: VIDEO is the camera's node, GPIO_CHIP the chip's, GPIO_SIM the folder with sim_gpioN/{value,pull}.
# Status 98: the command did not end in time, or the guest never came up. 97: the guest asked for a power cut (by the file
# /share/.board/cut) and got it. Without BOARD_DISK nothing that the guest writes outside /share is kept.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cpu=${BOARD_CPU:-cortex-a72}
cores=${BOARD_CORES:-2}
memory=${BOARD_MEMORY:-1024}
timeout=${BOARD_TIMEOUT:-1200}

say() { printf 'board: %s\n' "$*" >&2; }

# One thread of the host for each core of the guest.
machine() { # DIR ARGUMENTS...
    local dir=$1 disk="file=${BOARD_DISK:-$image/root.img},format=raw,if=none,id=disk"
    shift
    [ -n "${BOARD_DISK:-}" ] || disk+=,snapshot=on
    exec qemu-system-aarch64 -M virt,gic-version=3 -cpu "$cpu" -smp "$cores" -m "$memory" -accel tcg,thread=multi \
        -kernel "$image/Image" -initrd "$image/initrd.img" \
        -append "console=ttyAMA0 quiet loglevel=4 net.ifnames=0 selinux=0 audit=0 trace_event=gpio trace_clock=mono" \
        -drive "$disk" -device virtio-blk-pci,drive=disk \
        -fsdev "local,id=share,path=$dir,security_model=none" -device virtio-9p-pci,fsdev=share,mount_tag=share \
        -nic none -no-reboot "$@"
}

run() { # DIR COMMAND...
    local dir state start=$SECONDS
    dir=$(realpath "$1")
    state=$dir/.board
    shift
    rm -rf "$state"
    mkdir -p "$state"
    printf '%s\n' "$*" > "$state/command"
    (machine "$dir" -display none -monitor none -serial "file:$state/console") &
    emulator=$!
    trap 'kill $emulator 2> /dev/null || :' EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM
    # The guest powers itself off; past the limit this emulator is ended.
    while kill -0 $emulator 2> /dev/null; do
        sleep 0.2
        if [ -e "$state/cut" ]; then
            # What the guest's kernel has not written yet is lost, as when a plug is pulled.
            kill -KILL $emulator
            wait $emulator 2> /dev/null || :
            [ ! -f "$state/output" ] || cat "$state/output"
            say "$cpu: power cut after $((SECONDS - start)) s"
            exit 97
        fi
        if [ $((SECONDS - start)) -ge "$timeout" ]; then
            say "no end within $timeout s"
            break
        fi
    done
    kill $emulator 2> /dev/null || :
    wait $emulator 2> /dev/null || :
    [ ! -f "$state/output" ] || cat "$state/output"
    if [ ! -f "$state/status" ]; then
        say "the command did not end; the console's last lines:"
        tail -40 "$state/console" >&2
        exit 98
    fi
    say "$cpu: up after $(cat "$state/uptime") s of guest time, $((SECONDS - start)) s in all"
    exit "$(cat "$state/status")"
}

[ $# -ge 1 ] && { [ "$1" = shell ] || [ $# -ge 2 ]; } || { sed -n '2,11s/^# \{0,1\}//p' "$0"; exit 2; }
image=$("$here/image.sh")
if [ "$1" = shell ]; then
    share=$(realpath "${2:-.}")
    rm -rf "$share/.board"
    machine "$share" -nographic
fi
run "$@"
