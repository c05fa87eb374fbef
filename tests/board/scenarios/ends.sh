#!/bin/sh
# However the daemon ends, its line ends safe. The pull is set the other way, so a level that reads low is driven low.
#   SIGTERM, panic: the safe level is driven before the release. Then the pull shows.
#   SIGKILL, out of memory: nobody can drive anything; the kernel releases the line, and the pull shows until the next start, which requests
#   the line at its safe level.
. /share/lib.sh
begin
line=17
# The program with faults on demand; everything else as shipped.
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

# Runs with the line driven active, the pull up.
run_active() {
    systemctl reset-failed $unit 2> /dev/null || :
    pattern red
    start_spotter
    pull $line down
    until_true 30 "the line reads active" line_is $line 1
    pull $line up
    echo > /sys/kernel/tracing/trace
}
another_process() { [ "$(main_pid)" != "$pid" ] && [ "$(main_pid)" != 0 ]; }
active() { systemctl is-active --quiet $unit; }
driven_low() { driven $line | grep -q ' 0$'; }
first_low() { driven $line | awk '$2 == 0 { print $1; exit }'; }

run_active
began=$(now)
systemctl stop $unit
driven_low || fail "SIGTERM: the safe level was not driven"
figure sigterm_ms "$(awk -v a="$began" -v b="$(first_low)" 'BEGIN { printf "%d", 1000 * (b - a) }')"
line_is $line 1 || fail "SIGTERM: the line was not released"

# Nothing but the panic has driven a level within so short a time: the next process comes 2 s later.
run_active
began=$(now)
echo panic > /run/spotter/fault
until_true 20 "panic: another process runs" another_process
driven_low || fail "panic: the safe level was not driven"
first=$(driven $line | head -1)
[ "${first#* }" = 0 ] || fail "panic: the first level driven after it is $first"
ms=$(awk -v a="$began" -v b="${first% *}" 'BEGIN { printf "%d", 1000 * (b - a) }')
figure panic_ms "$ms"
[ "$ms" -lt 1900 ] || fail "panic: the safe level was driven only by the next process"
journal | grep -q 'a panic on demand' || fail "the panic is not in the journal"
until_true 20 "it runs again" active
systemctl stop $unit

run_active
began=$(now)
kill -KILL "$pid"
until_true 20 "SIGKILL: another process runs" another_process
until_true 20 "SIGKILL: the safe level is driven at the next start" driven_low
figure sigkill_s "$(since "$began" "$(first_low)")"
until_true 20 "it runs again" active
systemctl stop $unit

run_active
began=$(now)
cgroup=/sys/fs/cgroup$(systemctl show -P ControlGroup $unit)
echo 1M > "$cgroup/memory.max"
gone() { [ ! -e "/proc/$pid" ]; }
until_true 30 "out of memory: the kernel ends it" gone
echo max 2> /dev/null > "$cgroup/memory.max" || :
until_true 20 "out of memory: another process runs" another_process
until_true 20 "out of memory: the safe level is driven at the next start" driven_low
figure oom_s "$(since "$began" "$(first_low)")"
journal | grep -qi 'oom' || fail "the journal does not say that memory ran out"
until_true 20 "it runs again" active
systemctl stop $unit
pull $line down
