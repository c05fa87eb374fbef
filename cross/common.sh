# Shared by the scripts of this folder; sourced, not run. Everything that they download or build lies under $CACHE, except
# Debian packages (named in packages.sh) and Cargo's target folder.
set -euo pipefail

CROSS=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
ROOT=$(dirname "$CROSS")
CACHE=${XDG_CACHE_HOME:-$HOME/.cache}/spotter
TARGET=aarch64-unknown-linux-gnu
TARGET_DIR=${CARGO_TARGET_DIR:-$ROOT/target}
# The oldest C library that the binary promises to run on: JetPack 4 (Jetson Nano) has 2.27, JetPack 5 2.31, Debian 11 2.31.
GLIBC=2.27
ZIG=0.17.1
ZIGBUILD=0.24.0

say() { printf '[%(%H:%M:%S)T] %s\n' -1 "$*" >&2; }
die() { say "error: $*"; exit 1; }

# Runs a command and shows its output only if it fails.
quietly() {
    local log; log=$(mktemp)
    if ! "$@" >"$log" 2>&1; then tail -40 "$log" >&2; rm -f "$log"; die "this failed: $*"; fi
    rm -f "$log"
}

# A Python environment of its own in $CACHE/$1 with the given packages at the given versions.
need_python() {
    local dir=$CACHE/$1 stamp=$CACHE/$1/.holds
    shift
    [[ $(cat "$stamp" 2>/dev/null) == "$*" ]] && return
    say "a Python environment with $*"
    rm -rf "$dir"
    mkdir -p "$CACHE"
    quietly python3 -m venv "$dir"
    quietly "$dir/bin/pip" install -q "$@"
    echo "$*" >"$stamp"
}

# cargo-zigbuild and zig: a C compiler and linker for aarch64 that links against a C library of any age.
need_toolchain() {
    "$CROSS/packages.sh" arm
    command -v cargo >/dev/null || die "cargo is missing: install Rust from https://rustup.rs"
    need_python zig "ziglang==$ZIG" "cargo-zigbuild==$ZIGBUILD"
    [[ -d $(rustc --print sysroot)/lib/rustlib/$TARGET ]] || quietly rustup target add "$TARGET"
    PATH=$CACHE/zig/bin:$PATH
}

# The ordinary mirror of this host, for packages of other releases than its own.
mirror() {
    local url
    url=$(awk '/^URIs:/ { print $2; exit }' /etc/apt/sources.list.d/debian.sources 2>/dev/null || true)
    [[ -n $url ]] || url=$(awk '$1 == "deb" { for (i = 2; i < NF; i++) if ($i ~ /^https?:.*debian\/?$/) { print $i; exit } }' /etc/apt/sources.list 2>/dev/null || true)
    echo "${url:-http://deb.debian.org/debian}"
}

# apt-get and its like with sources of our own ($CACHE/apt), so that the host's stay as they are.
private_apt() {
    local dir=$CACHE/apt
    mkdir -p "$dir"/{lists/partial,archives/partial}
    cat >"$dir/sources.list" <<S
deb [arch=amd64] $(mirror) bookworm main
deb [arch=amd64] $(mirror) bookworm-backports main
deb-src $(mirror) trixie main
S
    cat >"$dir/apt.conf" <<C
Dir::State::Lists "$dir/lists";
Dir::Cache "$dir";
Dir::Etc::SourceList "$dir/sources.list";
Dir::Etc::SourceParts "-";
APT::Sandbox::User "root";
DPkg::Lock::Timeout "300";
C
    [[ -e $dir/updated ]] || { APT_CONFIG=$dir/apt.conf quietly apt-get update -qq && touch "$dir/updated"; }
    APT_CONFIG=$dir/apt.conf "$@"
}

# Debian's static user-mode emulator, unpacked and not installed: installing it would register it for all foreign binaries.
need_emulator() {
    QEMU=$CACHE/qemu/usr/bin/qemu-aarch64
    [[ -x $QEMU ]] && return
    say "the emulator qemu-user from Debian's backports"
    mkdir -p "$CACHE/qemu"
    (cd "$CACHE/qemu" && rm -f qemu-user*.deb && private_apt quietly apt-get download -qq qemu-user/bookworm-backports)
    dpkg-deb --fsys-tarfile "$CACHE"/qemu/qemu-user_*.deb | tar -x -C "$CACHE/qemu" ./usr/bin/qemu-aarch64
    rm -f "$CACHE"/qemu/qemu-user_*.deb
    "$QEMU" --version >&2 | head -1
}
