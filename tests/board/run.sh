#!/usr/bin/env bash
# `make test-board`: runs scenarios on the emulated board, each in a fresh boot, and prints a table. Exits by it.
#
#   tests/board/run.sh [SCENARIO...]     default: all of tests/board/scenarios/*.sh
#
# SPOTTER_BINARY tests that aarch64 binary instead of building one. BOARD_CPU and the like are as in tests/board/guest.sh.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)
target=${CARGO_TARGET_DIR:-$root/target}
binary=${SPOTTER_BINARY:-$target/aarch64-unknown-linux-gnu/dist/spotter}

"$root/cross/packages.sh" board
[ -n "${SPOTTER_BINARY:-}" ] || "$root/cross/build.sh"
"$here/image.sh" > /dev/null
[ $# -gt 0 ] || set -- "$here"/scenarios/*.sh

rows=()
failed=0
for scenario in "$@"; do
    name=$(basename "$scenario" .sh)
    [ -f "$here/scenarios/$name.sh" ] || { echo "board: no scenario '$name'" >&2; exit 2; }
    share=$target/board/$name
    rm -rf "$share"
    mkdir -p "$share"
    cp "$binary" "$share/spotter"
    cp -r "$root/systemd" "$root/models" "$here/scenarios" "$here/lib.sh" "$share/"
    printf '\nboard: %s\n' "$name"
    start=$SECONDS
    verdict=passed
    "$here/guest.sh" "$share" "sh /share/scenarios/$name.sh" || verdict=FAILED
    [ $verdict = passed ] || failed=$((failed + 1))
    figures=$(paste -sd, "$share/figures" 2> /dev/null | sed 's/,/, /g' || :)
    rows+=("$(printf '%-16s %-8s %7d  %s' "$name" "$verdict" $((SECONDS - start)) "$figures")")
done

printf '\n%-16s %-8s %7s  %s\n' scenario verdict seconds figures
printf '%s\n' "${rows[@]}"
[ $failed = 0 ]
