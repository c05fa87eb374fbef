#!/usr/bin/env bash
# `make test-board`: installs the package on the emulated board, runs scenarios there, and prints a table. Exits by it.
#
#   tests/board/run.sh [SCENARIO...]           those of the gate, or the named ones
#   tests/board/run.sh --all [SCENARIO...]     all of them, or the named ones, thoroughly, on each core of CORES (make test-board-all)
#
# CORES is `cortex-a72 cortex-a76`, as QEMU names them. SPOTTER_DEB and SPOTTER_FAULTS name a package and a program with the feature
# `faults` (both arm64) to test instead of building them. BOARD_CPU and the like are as in tests/board/guest.sh.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)
target=${CARGO_TARGET_DIR:-$root/target}

# In the order in which they run, in one boot; each puts back what it changes.
together=(package drop_ins camera_faults line_held inputs reload hot broker_refuses reconnects broker_killed watchdog ends storage idle)
# Each in a fresh boot.
alone=(first_event late_camera)
# Programs of this machine, which boot the board as often as they need to.
outside=(power_cuts)
all=("${together[@]}" "${alone[@]}" "${outside[@]}")
# What fits the gate's hour.
gate=(drop_ins line_held inputs reload first_event late_camera)
# These need the program with faults on demand, which is compiled for them.
with_faults=(watchdog ends)

thorough='' cores=${BOARD_CPU:-cortex-a72} wanted=("${gate[@]}")
if [ "${1:-}" = --all ]; then
    thorough=1 cores=${CORES:-cortex-a72 cortex-a76} wanted=("${all[@]}")
    shift
fi
[ $# = 0 ] || wanted=("$@")
for name in "${wanted[@]}"; do
    [[ " ${all[*]} " == *" $name "* ]] || { echo "board: no scenario '$name'; there are: ${all[*]}" >&2; exit 2; }
done

chosen() { # those of "$@" that are wanted
    local name
    for name in "$@"; do [[ " ${wanted[*]} " != *" $name "* ]] || echo "$name"; done
}

# The package, and the same program with faults on demand.
programs() {
    local version
    version=$(sed -n 's/^version = "\(.*\)"/\1/p' "$root/Cargo.toml" | head -1)
    deb=${SPOTTER_DEB:-$target/deb/spotter_${version}_arm64.deb}
    faults=${SPOTTER_FAULTS:-$target/board/spotter-faults}
    [ -n "${SPOTTER_DEB:-}" ] || "$root/packaging/deb.sh" arm64
    if [ -z "${SPOTTER_FAULTS:-}" ] && [ -n "$(chosen "${with_faults[@]}")" ]; then
        # By the same command as the package's program, so that only our own crate is compiled again.
        "$root/cross/build.sh" aarch64 --features faults
        mkdir -p "$target/board"
        cp "$target/aarch64-unknown-linux-gnu/dist/spotter" "$faults"
    fi
}

# The same package as the next version: what an upgrade is.
next_package() {
    local tree=$target/board/next
    rm -rf "$tree"
    mkdir -p "$target/board"
    dpkg-deb -R "$deb" "$tree"
    sed -i 's/^Version: .*/&+next/' "$tree/DEBIAN/control"
    dpkg-deb --root-owner-group -Zgzip -z1 --build "$tree" "$target/board/spotter-next.deb" > /dev/null
    rm -rf "$tree"
}

# An authority, and a broker's certificate for the board itself, valid from now on.
certificates() {
    local tls=$target/board/tls
    rm -rf "$tls"
    mkdir -p "$tls"
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 30 -subj "/CN=the board's authority" \
        -keyout "$tls/ca.key" -out "$tls/ca.pem" 2> /dev/null
    openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=localhost -keyout "$tls/broker.key" -out "$tls/broker.csr" 2> /dev/null
    openssl x509 -req -in "$tls/broker.csr" -CA "$tls/ca.pem" -CAkey "$tls/ca.key" -days 30 -out "$tls/broker.pem" \
        -extfile <(echo subjectAltName=DNS:localhost,IP:127.0.0.1) 2> /dev/null
    chmod 644 "$tls"/*
}

# What a boot sees as /share.
share_for() { # FOLDER
    rm -rf "$1"
    mkdir -p "$1/models"
    cp "$deb" "$1/spotter.deb"
    [ ! -f "$faults" ] || cp "$faults" "$1/spotter-faults"
    cp "$target/board/spotter-next.deb" "$1/"
    cp "$here"/models/pattern* "$1/models/"
    cp -r "$root/systemd" "$here/scenarios" "$here/photos" "$here/lib.sh" "$here/session.sh" "$target/board/tls" "$1/"
}

row() { # CORE NAME RESULTS
    local verdict=FAILED seconds=0 figures
    [ ! -f "$3/verdict" ] || read -r verdict seconds < "$3/verdict"
    figures=$(paste -sd, "$3/figures" 2> /dev/null | sed 's/,/, /g' || :)
    [ "$verdict" = passed ] || failed=$((failed + 1))
    rows+=("$(printf '%-11s %-18s %-8s %7d  %s' "$1" "$2" "$verdict" "$seconds" "$figures")")
}

boot() { # CORE FOLDER SCENARIO...
    local core=$1 share=$target/board/$1/$2 name
    shift 2
    printf '\nboard: %s: %s\n' "$core" "$*"
    share_for "$share"
    BOARD_CPU=$core BOARD_TIMEOUT=${BOARD_TIMEOUT:-$([ -n "$thorough" ] && echo 7200 || echo 1200)} \
        "$here/guest.sh" "$share" "THOROUGH=$thorough sh /share/session.sh $*" || :
    for name in "$@"; do row "$core" "$name" "$share/results/$name"; done
}

"$root/cross/packages.sh" board
programs
next_package
certificates
"$here/image.sh" > /dev/null
rows=() failed=0
for core in $cores; do
    mapfile -t names < <(chosen "${together[@]}")
    [ ${#names[@]} = 0 ] || boot "$core" together "${names[@]}"
    for name in $(chosen "${alone[@]}"); do boot "$core" "$name" "$name"; done
    for name in $(chosen "${outside[@]}"); do
        share=$target/board/$core/$name
        printf '\nboard: %s: %s\n' "$core" "$name"
        share_for "$share"
        mkdir -p "$share/results/$name"
        start=$SECONDS verdict=passed
        BOARD_CPU=$core THOROUGH=$thorough "$here/$name.sh" "$share" || verdict=FAILED
        echo "$verdict $((SECONDS - start))" > "$share/results/$name/verdict"
        row "$core" "$name" "$share/results/$name"
    done
done

printf '\n%-11s %-18s %-8s %7s  %s\n' core scenario verdict seconds figures
printf '%s\n' "${rows[@]}"
[ $failed = 0 ]
