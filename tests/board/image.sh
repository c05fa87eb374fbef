#!/usr/bin/env bash
# Builds the emulated board's image: an arm64 Debian 13 with systemd, a virtual V4L2 camera (vivid), a simulated GPIO chip
# (gpio-sim), Mosquitto and its clients. Prints the folder that holds it (`Image`, `initrd.img`, `root.img`); at once when it is there.
#
#   tests/board/image.sh
#
# Everything lies under ${XDG_CACHE_HOME:-~/.cache}/spotter/board; BOARD_CACHE names another place. About 4 minutes, 300 MB of downloads,
# 0.8 GB of disk. The kernel is that of trixie-backports: Debian's 6.1 and 6.12 are built without gpio-sim. The root file system
# is made as root (or through sudo): file owners in it are real. The image is never written to afterwards.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cache=${BOARD_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/spotter/board}
suite=trixie
kernel_suite=trixie-backports
guest_packages=systemd,systemd-sysv,udev,kmod,dbus,v4l-utils,gpiod,mosquitto,mosquitto-clients,busybox-static,procps,gstreamer1.0-tools,gstreamer1.0-plugins-base
# With what each depends on, these are all the modules that the image carries.
modules=(vivid vgem gpio-sim configfs 9pnet_virtio 9p virtio_net virtio_blk ext4)
keyring=/usr/share/keyrings/debian-archive-keyring.gpg

say() { printf 'board image: %s\n' "$*" >&2; }
die() { say "$*"; exit 1; }

# Another recipe makes another image.
recipe() {
    cat "$here/image.sh" "$here/initrd-init" <(cd "$here/rootfs" && find . -type f | sort | xargs sha256sum) | sha256sum | cut -c1-12
}

# The Debian mirror that this machine's own apt uses.
mirror() {
    # shellcheck disable=SC2016
    local format='$(ORIGIN)|$(LABEL)|$(REPO_URI)' uri
    uri=$(apt-get indextargets --format "$format" 'Created-By: Packages' | sed -n 's,^Debian|Debian|\(.*[^/]\)/*$,\1,p' | awk 'NR == 1')
    [ -n "$uri" ] || die "apt knows no Debian mirror here; after 'apt-get update', 'apt-get indextargets' must list one"
    echo "$uri"
}

# An apt with lists and a cache of its own, so that the machine's sources stay as they are.
own_apt() {
    local apt=$cache/apt host uri
    host=$(dpkg --print-architecture)
    uri=$(mirror)
    mkdir -p "$apt"/lists/partial "$apt"/cache/archives/partial
    cat > "$apt/sources.list" <<SOURCES
deb [arch=$host,arm64 signed-by=$keyring] $uri $suite main
deb [arch=$host,arm64 signed-by=$keyring] $uri $kernel_suite main
SOURCES
    cat > "$apt/apt.conf" <<CONF
Dir::State::Lists "$apt/lists";
Dir::Cache "$apt/cache";
Dir::Etc::SourceList "$apt/sources.list";
Dir::Etc::SourceParts "-";
APT::Architectures {"$host";"arm64";};
APT::Default-Release "$suite";
APT::Sandbox::User "root";
CONF
    export APT_CONFIG=$apt/apt.conf
    apt-get update -qq
}

# Unpacks a package of that apt: unpack PACKAGE INTO
unpack() {
    (cd "$cache/apt" && rm -f ./*.deb && apt-get download -qq "$1" && dpkg-deb -x ./*.deb "$2" && rm -f ./*.deb)
}

# The guest's packages run their installation scripts on this machine: an arm64 program must start here. Debian 13's qemu-user is one
# static binary; the flag F makes the kernel keep it open, so it serves in a chroot too. Registered only while the image is built.
run_arm64() {
    [ "$(dpkg --print-architecture)" != arm64 ] || return 0
    local fs=/proc/sys/fs/binfmt_misc magic mask
    [ -x "$work/qemu/usr/bin/qemu-aarch64" ] || unpack qemu-user "$work/qemu"
    [ -e $fs/register ] || mount -t binfmt_misc none $fs
    magic='\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\xb7\x00'
    mask='\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff'
    [ ! -e $fs/spotter-aarch64 ] || echo -1 > $fs/spotter-aarch64
    printf '%s' ":spotter-aarch64:M::$magic:$mask:$work/qemu/usr/bin/qemu-aarch64:OCF" > $fs/register
}

# Unpacks the kernel (it is not installed): $work/Image and $work/tree/lib/modules/VERSION.
kernel() {
    local image part folder
    image=$(apt-cache show "linux-image-arm64:arm64/$kernel_suite" |
        awk '/^Depends:/ && !n && match($0, /linux-image-[0-9][^ ,:)]*-arm64/) {print substr($0, RSTART, RLENGTH); n = 1}')
    [ -n "$image" ] || die "no arm64 kernel in $kernel_suite"
    version=${image#linux-image-}
    say "kernel $version"
    for part in image binary modules base; do # newer kernels come in four packages, older ones in one
        unpack "linux-$part-$version:arm64" "$work/kernel" 2> /dev/null || continue
    done
    folder=$work/kernel/usr/lib/modules/$version
    [ -d "$folder" ] || folder=$work/kernel/lib/modules/$version
    mkdir -p "$work/tree/lib/modules"
    if [ -e "$folder/vmlinuz" ]; then mv "$folder/vmlinuz" "$work/Image"; else mv "$work/kernel/boot/vmlinuz-$version" "$work/Image"; fi
    mv "$folder" "$work/tree/lib/modules/$version"
    rm -rf "$work/kernel"
    depmod -b "$work/tree" "$version"
}

# Files of modules and of all that they need, dependencies first, relative to the modules' folder.
closure() {
    local module shown
    for module in "$@"; do
        shown=$(modprobe -d "$work/tree" -S "$version" --show-depends "$module" 2> /dev/null) || die "kernel $version has no module $module"
        awk '$1 == "insmod" {print $2}' <<< "$shown"
    done | awk '!seen[$0]++' | sed "s,^.*/lib/modules/$version/,,"
}

root_file_system() {
    say "root file system of $suite (mmdebstrap)"
    local uri
    uri=$(mirror)
    # check/qemu looks for an emulator by other names than run_arm64's.
    env -u APT_CONFIG mmdebstrap --quiet --format=tar --mode=root --skip=check/qemu \
        --arch=arm64 --variant=minbase --include="$guest_packages" \
        --aptopt='APT::Install-Recommends "false"' \
        --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/locale/*' \
        --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/info/*' \
        "$suite" - "deb [signed-by=$keyring] $uri $suite main" | tar -x -C "$work/root"
}

# What makes that file system this board: modules, the files under rootfs/, and quick, silent boots.
furnish() {
    local root=$work/root tree=$work/tree/lib/modules/$version unit file
    install -d "$root/lib/modules/$version"
    cp "$tree"/modules.{builtin,order,builtin.modinfo} "$root/lib/modules/$version/"
    closure "${modules[@]}" > "$work/closure"
    while read -r file; do install -D -m644 "$tree/$file" "$root/lib/modules/$version/$file"; done < "$work/closure"
    depmod -b "$root" "$version"

    cp -a --no-preserve=ownership "$here/rootfs/." "$root/"
    rm -f "$root/etc/systemd/system/multi-user.target.wants/mosquitto.service" # scenarios start it
    for unit in apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer e2scrub_all.timer fstrim.timer ldconfig.service \
        systemd-{firstboot,pcrphase,hwdb-update,journal-catalog-update,tpm2-setup-early,update-done,random-seed}.service \
        systemd-{journal-flush,udev-load-credentials}.service dev-{hugepages,mqueue}.mount sys-fs-fuse-connections.mount \
        sys-kernel-{tracing,debug}.mount getty@tty1.service; do
        ln -sf /dev/null "$root/etc/systemd/system/$unit"
    done
    sed -i 's/^root:[^:]*:/root::/' "$root/etc/shadow"
    echo board > "$root/etc/hostname"
    : > "$root/etc/fstab"
    echo 0123456789abcdef0123456789abcdef > "$root/etc/machine-id" # fixed: no first-boot work
}

initrd() {
    local i=$work/initrd n=10 file name
    mkdir -p "$i"/{bin,dev,proc,sys,mnt,modules}
    cp "$work/root/usr/bin/busybox" "$i/bin/busybox"
    ln -s busybox "$i/bin/sh"
    install -m755 "$here/initrd-init" "$i/init"
    closure virtio_blk ext4 > "$work/closure"
    while read -r file; do
        n=$((n + 1))
        name=$n-$(basename "${file%.xz}")
        case $file in
            *.xz) xz -dc "$work/tree/lib/modules/$version/$file" > "$i/modules/$name" ;;
            *) cp "$work/tree/lib/modules/$version/$file" "$i/modules/$name" ;;
        esac
    done < "$work/closure"
    (cd "$i" && find . | cpio -o -H newc --quiet | gzip -1) > "$work/initrd.img"
}

build() {
    work=$cache/part
    rm -rf "$work"
    mkdir -p "$work"/{qemu,kernel,tree,root}
    # shellcheck disable=SC2064
    trap "[ ! -e /proc/sys/fs/binfmt_misc/spotter-aarch64 ] || echo -1 > /proc/sys/fs/binfmt_misc/spotter-aarch64; rm -rf '$work'" EXIT
    own_apt
    run_arm64
    kernel
    root_file_system
    furnish
    initrd
    truncate -s 1G "$work/root.img"
    mke2fs -q -t ext4 -L root -O ^has_journal -d "$work/root" "$work/root.img"
    echo "$version" > "$work/version"
    rm -rf "$work"/{root,tree,initrd,qemu,kernel,closure} "$cache"/image-*
    mv "$work" "$image"
    rm -rf "$cache/apt"
    say "built in $SECONDS s, $(du -sh "$image" | cut -f1): $image"
}

image=$cache/image-$(recipe)
if [ ! -e "$image/root.img" ]; then
    if [ "$(id -u)" != 0 ]; then
        command -v sudo > /dev/null || die "the image is made as root, and there is no sudo: run this script as root once"
        sudo env BOARD_CACHE="$cache" bash "$here/image.sh" > /dev/null
    else
        "$here/../../cross/packages.sh" board
        mkdir -p "$cache"
        (
            flock 9 # two builds at once would be two works in one folder
            [ -e "$image/root.img" ] || build >&2
        ) 9> "$cache/lock"
    fi
fi
echo "$image"
