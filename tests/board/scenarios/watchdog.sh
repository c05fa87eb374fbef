#!/bin/sh
# The process lives and its inference is stuck: the watchdog ends it within 35 s, the pins are safe from then on, and it runs again.
. /share/lib.sh
begin
line=17
install -m755 /share/spotter-faults /usr/local/bin/spotter-faults
drop_in faults << 'E2'
[Service]
ExecStart=
ExecStart=/usr/local/bin/spotter-faults run --config /etc/spotter/spotter.toml
E2
configure << 'E2'
[[rule]]
name = "red"
classes = ["red"]
actions = ["lamp"]

[action.lamp]
type = "gpio"
chip = "edge-sim"
line = 17
mode = "follow"
safe = "low"
E2
pattern red
start_spotter
until_true 30 "the line reads active" line_is $line 1
pull $line up
echo > /sys/kernel/tracing/trace
echo stall > /run/spotter/fault
stalled=$(now)
another_process() { [ "$(main_pid)" != "$pid" ] && [ "$(main_pid)" != 0 ]; }
until_true 40 "the watchdog ends it" another_process
figure restarted_s "$(since "$stalled")"
awk -v t="$(since "$stalled")" 'BEGIN { exit !(t <= 35) }' || fail "it took longer than 35 s"
first=$(driven $line | head -1)
[ "${first#* }" = 0 ] || fail "the first level driven after the stall is '$first'"
figure safe_s "$(since "$stalled" "${first% *}")"
# The next process comes 2 s after the end of the stalled one.
awk -v safe="${first% *}" -v again="$(journalctl --no-pager -q -o short-monotonic -u $unit --after-cursor "$journal_from" |
    sed -n 's/^\[ *\([0-9.]*\)\].*Main process exited.*/\1/p' | tail -1)" 'BEGIN { exit !(again != "" && safe <= again) }' ||
    fail "the safe level was driven only by the next process"
journal | grep -q 'the watchdog was not fed' || fail "the journal does not say why"
until_true 30 "it runs again" systemctl is-active --quiet $unit
pid=$(main_pid)
until_true 30 "it acts again" line_is $line 1
pull $line down
