#!/usr/bin/env bash
# make cross: the daemon for 64-bit Arm Linux, into target/aarch64-unknown-linux-gnu/dist/spotter.
#
#   cross/build.sh [aarch64|x86_64] [CARGO'S ARGUMENTS...]     the program for either, as `make deb` packs it
#
# It is linked against the C library of 2018 (glibc 2.27), so it runs on JetPack 4 and anything newer, and needs no cross
# compiler from Debian: zig, from PyPI, compiles the little C there is and links. The result's symbol versions are checked.
# From nothing about 9 minutes of processor time.
. "$(dirname "$0")/common.sh"

machine=${1:-aarch64}
TARGET=$machine-unknown-linux-gnu
shift $(($# > 0))
need_toolchain
say "building spotter for $TARGET, glibc $GLIBC"
(cd "$ROOT" && cargo-zigbuild zigbuild --profile dist --locked --bin spotter --target "$TARGET.$GLIBC" "$@")

binary=$TARGET_DIR/$TARGET/dist/spotter
readelf -h "$binary" | grep -i 'Machine:' | tr - _ | grep -qi "$machine" || die "$binary is not a program for $machine"
needed=$(readelf -V "$binary" | grep -oE 'GLIBC_[0-9.]+' | sed 's/GLIBC_//' | sort -uV | tail -1)
newest=$(printf '%s\n' "$needed" "$GLIBC" | sort -V | tail -1)
[[ $newest == "$GLIBC" ]] || die "$binary needs glibc $needed, but glibc $GLIBC was promised"

echo
printf '%-18s %s\n' binary "$binary" \
    size "$(stat -c %s "$binary") bytes" \
    'needs glibc' "$needed or newer (promised: $GLIBC)" \
    'shared libraries' "$(readelf -d "$binary" | sed -n 's/.*NEEDED.*\[\(.*\)\]/\1/p' | paste -sd' ')"
