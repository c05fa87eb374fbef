#!/usr/bin/env bash
# make bench-arm: executed aarch64 instructions of a whole VGG16 inference, one thread, on each emulated core; and the inner loops under llvm-mca.
#
#   cross/count.sh                       the table, and what stands in docs as "counted under emulation"
#   cross/count.sh run BINARY ARGS...    the same counting for any aarch64 program that writes a line between its parts; CORE names the core
#   cross/count.sh emulator              only builds the emulator
#
# Debian's qemu-user is static and takes no plugins, so one that does is built once from Debian's source: about 3 minutes of processor time.
# Counts are repeatable to the instruction: no address randomisation, a fixed random seed, an empty environment, one thread.
. "$(dirname "$0")/common.sh"

CORES=${CORES:-cortex-a72 cortex-a76 neoverse-v1}
MESON=1.5.0
COUNTING=$CACHE/qemu-plugin

need_counting_emulator() {
    need_packages_of "$CROSS/packages-count.txt"
    if [[ ! -x $COUNTING/qemu-aarch64 ]]; then
        local build
        build=$(mktemp -d -p "$CACHE")
        say "building an emulator that takes plugins"
        mkdir "$build/src" "$build/out"
        (cd "$build" && private_apt quietly apt-get source -qq --download-only qemu/trixie)
        tar -x -C "$build/src" --strip-components=1 -f "$build"/qemu_*.orig.tar.xz
        # Debian left the firmware blobs out of its source; a user-mode emulator needs none.
        echo 'roms = []' >"$build/src/pc-bios/meson.build"
        need_python qemu-meson "meson==$MESON" pycotap distlib setuptools wheel
        (cd "$build/out" && quietly ../src/configure --target-list=aarch64-linux-user --without-default-features --enable-tcg \
            --enable-linux-user --enable-plugins --disable-docs --disable-werror --python="$CACHE/qemu-meson/bin/python3")
        quietly nice ninja -C "$build/out" qemu-aarch64
        mkdir -p "$COUNTING"
        strip -o "$COUNTING/qemu-aarch64.part" "$build/out/qemu-aarch64"
        mv "$COUNTING/qemu-aarch64.part" "$COUNTING/qemu-aarch64"
        rm -rf "$build"
    fi
    if [[ $CROSS/count/opcount.c -nt $COUNTING/opcount.so ]]; then
        quietly gcc -O2 -Wall -Wextra -shared -fPIC -o "$COUNTING/opcount.so" "$CROSS/count/opcount.c"
    fi
}

# count CORE OUTPUT BINARY ARGS...
count() {
    local core=$1 out=$2
    shift 2
    setarch -R env -i "$COUNTING/qemu-aarch64" -cpu "$core" -seed 1 -L /usr/aarch64-linux-gnu -plugin "$COUNTING/opcount.so,out=$out" "$@"
}

case ${1:-} in
run)
    shift
    need_counting_emulator
    out=$(mktemp)
    count "${CORE:-cortex-a72}" "$out" "$@"
    cuts=$(grep -c '^cut' "$out")
    python3 "$CROSS/count/classes.py" "$out" $((cuts > 2 ? cuts - 3 : 0)) $((cuts > 2 ? cuts - 2 : cuts - 1))
    rm -f "$out"
    ;;
emulator) need_counting_emulator ;;
*) die "not yet" ;;
esac
