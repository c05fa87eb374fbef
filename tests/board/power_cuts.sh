#!/usr/bin/env bash
# The board on a disk of its own, with a journal as a card has: a cold boot to the first event, then the plug pulled again and again while
# pictures, events and switches are written. What runs in the guest is scenarios/power_cuts.sh.
#
#   power_cuts.sh FOLDER      FOLDER is what the board sees as /share; THOROUGH=1 for twenty cuts and not two
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
share=$1
cuts=$([ -n "${THOROUGH:-}" ] && echo 20 || echo 2)
image=$("$here/image.sh")
export BOARD_DISK=$share.img

boot() { # STEP EXPECTED-STATUS
    local status=0
    "$here/guest.sh" "$share" "figures=/share/results/power_cuts/figures sh /share/scenarios/power_cuts.sh $1" || status=$?
    [ $status = "$2" ] || { echo "power_cuts: step $1 ended with $status"; exit 1; }
}

trap 'rm -f "$BOARD_DISK"' EXIT
cp --sparse=always "$image/root.img" "$BOARD_DISK"
tune2fs -O has_journal "$BOARD_DISK" > /dev/null
boot install 97
boot cold 97
for _ in $(seq $((cuts - 1))); do boot again 97; done
boot last 0
echo "cuts $cuts" >> "$share/results/power_cuts/figures"
# The disk itself, after its journal has been replayed.
e2fsck -fp "$BOARD_DISK" > /dev/null || [ $? -le 1 ]
