#!/usr/bin/env bash
# Every system package that Spotter's targets need, and their installation. The one place where packages are named.
#
#   cross/packages.sh PURPOSE...    install what is missing for these purposes (build demo test arm board count web peers homeassistant motion fuzz)
#   cross/packages.sh --list PURPOSE...   print the names and do nothing
#
# For Debian 12 and 13 and Raspberry Pi OS of both (the names are the same on all four). As root, or through sudo.
# On another system it names what is needed and goes on: the tools then speak for themselves.
set -euo pipefail

# A purpose's packages. Unversioned metapackages where a name would carry a release's version (libclang-14-dev, -19-dev).
packages_of() {
    case $1 in
        # libclang: bindgen reads the kernel's V4L2 header for the v4l crate. gcc and libc6-dev: the linker, and ring's C and assembly.
        build) echo gcc libc6-dev libclang-dev linux-libc-dev make ;;
        # A broker of one's own for every run; the clients are the independent witnesses.
        demo) packages_of build; echo mosquitto mosquitto-clients ;;
        # openssl makes the certificates of the tests over TLS; prometheus brings promtool, which reads the metrics and the alert rules.
        test) packages_of demo; echo openssl prometheus ;;
        # binutils read the binary that was built; zig and cargo-zigbuild come from PyPI into an environment of their own;
        # the C library is for the emulated programs.
        arm) packages_of build; echo binutils ca-certificates g++ libc6-arm64-cross python3-venv ;;
        # qemu-system-arm boots the board; the others build its image: a root file system, an initrd, a kernel's modules.
        board) packages_of arm; echo cpio debian-archive-keyring e2fsprogs gzip kmod mmdebstrap openssl qemu-system-arm xz-utils ;;
        # Home Assistant's own schemas come from PyPI into an environment.
        homeassistant) packages_of test; echo ca-certificates python3-venv ;;
        # opencv-doc has the recording (100 MB to load), ffmpeg lays photos over it.
        motion) packages_of build; echo ffmpeg opencv-doc python3 ;;
        # libFuzzer is C++.
        fuzz) packages_of build; echo g++ ;;
        peers) packages_of build; echo ca-certificates python3-venv ;;
        # An emulator that takes plugins is built from Debian's source; objdump and llvm-mca look at what ran.
        count) packages_of arm; echo binutils-aarch64-linux-gnu dpkg-dev libglib2.0-dev llvm-19 ninja-build pkg-config ;;
        # The browser and its driver; npm brings axe-core.
        # An npm from elsewhere serves as well, and Debian's conflicts with NodeSource's nodejs.
        web) packages_of test; echo chromium chromium-driver fonts-dejavu-core; command -v npm > /dev/null || echo nodejs npm ;;
        *) return 1 ;;
    esac
}

say() { printf 'packages: %s\n' "$*" >&2; }

names() { # of all purposes, one a line, each once
    local purpose
    for purpose in "$@"; do
        packages_of "$purpose" || { say "no purpose '$purpose'; there are: build demo test arm board count web peers homeassistant motion fuzz"; exit 2; }
    done | tr -s ' \n' '\n' | sort -u
}

missing() { # those of "$@" that are not installed
    dpkg-query -W -f '${db:Status-Status} ${Package}\n' "$@" 2>/dev/null | sed -n 's/^installed //p' | sort -u |
        comm -13 - <(printf '%s\n' "$@" | sort -u)
}

as_root() {
    if [ "$(id -u)" = 0 ]; then
        env DEBIAN_FRONTEND=noninteractive "$@"
    elif command -v sudo > /dev/null; then
        sudo env DEBIAN_FRONTEND=noninteractive "$@"
    else
        say "this needs root and there is no sudo; as root: $*"
        exit 1
    fi
}

apt() { as_root apt-get -qq -o DPkg::Lock::Timeout=300 -o Dpkg::Use-Pty=0 "$@" > /dev/null; }

install() {
    local fresh_broker= fresh_prometheus=
    [[ " $* " != *" mosquitto "* ]] || fresh_broker=1
    [[ " $* " != *" prometheus "* ]] || fresh_prometheus=1
    say "installing with apt-get: $*"
    # A fresh machine has no package lists; an old list names files that the mirror no longer has.
    apt-get -s install "$@" > /dev/null 2>&1 || apt update || say "apt-get update had errors; trying all the same"
    apt install -y --no-install-recommends "$@" || { apt update && apt install -y --no-install-recommends "$@"; } ||
        { say "apt-get could not install: $*"; exit 1; }
    # Debian starts a broker on port 1883 with the package. Nobody asked for one: every test starts its own.
    if [ -n "$fresh_broker" ] && [ -d /run/systemd/system ]; then
        say "switching the package's own broker service off (systemctl enable --now mosquitto brings it back)"
        as_root systemctl disable --now mosquitto.service > /dev/null 2>&1 || :
    fi
    if [ -n "$fresh_prometheus" ] && [ -d /run/systemd/system ]; then
        say "switching the package's own Prometheus off (systemctl enable --now prometheus brings it back)"
        as_root systemctl disable --now prometheus.service > /dev/null 2>&1 || :
    fi
}

main() {
    local list=
    if [ "${1:-}" = --list ]; then list=1; shift; fi
    [ $# -gt 0 ] || { sed -n '2,8s/^# \{0,1\}//p' "$0"; exit 2; }
    local wanted need
    wanted=$(names "$@")
    if [ -n "$list" ]; then echo "$wanted"; return; fi
    if ! command -v dpkg-query > /dev/null || ! command -v apt-get > /dev/null; then
        say "not a Debian system: nothing is installed. Needed, by Debian's names:" $wanted
        return
    fi
    # shellcheck disable=SC2086
    mapfile -t need < <(missing $wanted)
    [ ${#need[@]} = 0 ] || install "${need[@]}"
}

main "$@"
