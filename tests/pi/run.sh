#!/usr/bin/env bash
# `make test-pi`: examples/pi as the only program on an emulated Raspberry Pi 3B. Prints what it read back, exits by its status.
#
#   tests/pi/run.sh
#
# qemu's `raspi3b` has the BCM2837's GPIO registers: what is set and cleared reads back as on the hardware. Inputs, interrupts and pull
# resistors are not modelled. Debian's kernel and device tree, no disk: an initrd with busybox, the C library and the program.
# From nothing about 1 minute and 110 MB of downloads beside the build, which is that of `make cross`; then half a minute.
. "$(dirname "$0")/../../cross/common.sh"

SUITE=trixie
# Seconds for the whole: the slowest seen was 60, on a busy machine.
LIMIT=${PI_LIMIT:-300}
parts=$CACHE/pi-$SUITE

# Kernel, device tree and busybox out of Debian's packages.
need_parts() {
    [[ -e $parts/busybox ]] && return
    say "kernel, device tree and busybox from Debian's $SUITE"
    local apt=$CACHE/pi-apt work=$CACHE/pi-part package
    rm -rf "$work"
    mkdir -p "$apt"/{lists/partial,archives/partial} "$work/tree"
    echo "deb [arch=arm64 signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $(mirror) $SUITE main" > "$apt/sources.list"
    cat > "$apt/apt.conf" <<C
Dir::State::Lists "$apt/lists";
Dir::Cache "$apt";
Dir::Etc::SourceList "$apt/sources.list";
Dir::Etc::SourceParts "-";
APT::Architectures {"$(dpkg --print-architecture)";"arm64";};
APT::Sandbox::User "root";
C
    export APT_CONFIG=$apt/apt.conf
    quietly apt-get update -qq
    package=$(apt-cache depends linux-image-arm64:arm64 | sed -n 's/.*Depends: \(linux-image-[0-9][^:]*\).*/\1/p' | head -1)
    [[ -n $package ]] || die "$SUITE has no kernel for arm64"
    (cd "$work" && quietly apt-get download -qq "$package:arm64" busybox-static:arm64)
    for package in "$work"/*.deb; do dpkg-deb -x "$package" "$work/tree"; done
    find "$work/tree" -name 'vmlinuz*' -exec cp {} "$work/Image" \;
    find "$work/tree" -name bcm2837-rpi-3-b.dtb -exec cp {} "$work/pi.dtb" \;
    find "$work/tree" -name busybox -exec cp {} "$work/busybox" \;
    for package in Image pi.dtb busybox; do [[ -s $work/$package ]] || die "no $package in Debian's packages"; done
    rm -rf "$work"/{tree,*.deb} "$apt" "$parts"
    mv "$work" "$parts"
    unset APT_CONFIG
}

build() {
    need_toolchain
    say "building the program for $TARGET"
    (cd "$ROOT" && cargo-zigbuild zigbuild --profile dist --locked --example pi --target "$TARGET.$GLIBC")
}

initrd() { # FOLDER
    local fs=$1/fs library
    mkdir -p "$fs"/{bin,dev,lib,proc,sys}
    install -m 755 "$parts/busybox" "$fs/bin/busybox"
    ln -s busybox "$fs/bin/sh"
    install -m 755 "$TARGET_DIR/$TARGET/dist/examples/pi" "$fs/bin/pi"
    for library in $(readelf -d "$fs/bin/pi" | sed -n 's/.*NEEDED.*\[\(.*\)\]/\1/p') ld-linux-aarch64.so.1; do
        cp -L "/usr/aarch64-linux-gnu/lib/$library" "$fs/lib/"
    done
    cat > "$fs/init" <<'S'
#!/bin/sh
busybox mount -t devtmpfs dev /dev
busybox mount -t proc proc /proc
busybox mount -t sysfs sys /sys
echo "@@BEGIN"
RUST_LOG=warn pi 2>&1
echo "@@STATUS $?"
# -no-reboot does not end this machine: it is ended from outside.
while :; do busybox sleep 10; done
S
    chmod 755 "$fs/init"
    (cd "$fs" && find . | cpio -o -H newc --quiet | gzip -1) > "$1/initrd"
}

"$CROSS/packages.sh" board
need_parts
build
work=$(mktemp -d)
trap 'kill $emulator 2> /dev/null || :; rm -rf "$work"' EXIT
emulator=
initrd "$work"
say "an emulated Raspberry Pi 3B"
# The second serial port is the mini UART, ttyS1: the first belongs to Bluetooth in this device tree. Debian's kernel keeps the GPIO
# block to its own driver (IO_STRICT_DEVMEM); Raspberry Pi's has /dev/gpiomem for it.
qemu-system-aarch64 -M raspi3b -kernel "$parts/Image" -dtb "$parts/pi.dtb" -initrd "$work/initrd" \
    -append "console=ttyS1,115200 iomem=relaxed rdinit=/init quiet loglevel=3 panic=-1" \
    -display none -monitor none -serial null -serial "file:$work/serial" -no-reboot 2> "$work/errors" &
emulator=$!
for ((tick = 0; tick < LIMIT * 5; tick++)); do
    ! grep -qa '^@@STATUS ' "$work/serial" 2> /dev/null || break
    kill -0 $emulator 2> /dev/null || break
    sleep 0.2
done
# A line of the kernel's may stand before the mark.
tr -d '\r' < "$work/serial" | sed -n '/@@BEGIN/,/^@@STATUS/p' | grep -av '@@' || :
status=$(tr -d '\r' < "$work/serial" | sed -n 's/^@@STATUS //p' | tail -1)
[[ -n $status ]] || { tail -20 "$work/serial" "$work/errors" >&2; die "no result within $LIMIT s"; }
exit "$status"
