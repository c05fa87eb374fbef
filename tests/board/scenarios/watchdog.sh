#!/bin/sh
# The process lives and its inference is stuck: the watchdog ends it within 35 s, the line is safe from then on, and it runs again.
. /share/lib.sh
begin
line=17
with_faults
lamp_on_red $line
run_active $line
echo stall > /run/spotter/fault
stalled=$(now)
until_true 40 "the watchdog ends it" another_process
figure restarted_s "$(since "$stalled")"
awk -v t="$(since "$stalled")" 'BEGIN { exit !(t <= 35) }' || fail "it took longer than 35 s"
first=$(driven $line | head -1)
[ "${first#* }" = 0 ] || fail "the first level driven after the stall is '$first'"
figure safe_s "$(since "$stalled" "${first% *}")"
# By the stalled process itself: the next one comes 2 s after its end.
ended=$(journalctl --no-pager -q -o short-monotonic -u $unit --after-cursor "$journal_from" |
    sed -n 's/^\[ *\([0-9.]*\)\].*Main process exited.*/\1/p' | tail -1)
awk -v safe="${first% *}" -v ended="$ended" 'BEGIN { exit !(ended != "" && safe <= ended) }' || fail "the safe level was driven only by the next process"
journal | grep 'Watchdog timeout' || fail "the journal does not say why"
until_true 30 "it runs again" systemctl is-active --quiet $unit
pid=$(main_pid)
pull $line down
until_true 30 "it acts again" line_is $line 1
figure acts_again_s "$(since "$stalled")"
