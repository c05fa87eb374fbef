#!/bin/sh
# However the daemon ends, its line ends safe. The pull is set the other way, so a level that reads low is driven low.
#   SIGTERM, panic: the safe level is driven before the release. Then the pull shows.
#   SIGKILL, out of memory: nobody can drive anything; the kernel releases the line, and the pull shows until the next start, which requests
#   the line at its safe level.
. /share/lib.sh
begin
line=17
with_faults
lamp_on_red $line

driven_low() { driven $line | grep -q ' 0$'; }
first_low() { driven $line | awk '$2 == 0 { print $1; exit }'; }
runs_again() {
    until_true 20 "it runs again" systemctl is-active --quiet $unit
    systemctl stop $unit
}
gone() { [ ! -e "/proc/$pid" ]; }
# Released by the kernel, the line follows its pull; the next process drives it low against the pull.
safe_by_the_next() { # NAME
    until_true 20 "$1: the process ends" gone
    pull $line down
    line_is $line 0 || fail "$1: the kernel did not release the line"
    pull $line up
    line_is $line 1 || fail "$1: the line does not follow its pull"
    figure "$1_released_s" "$(since "$began")"
    until_true 20 "$1: the next start drives the safe level" line_is $line 0
    driven_low || fail "$1: the line reads low, and nobody drove it"
    figure "$1_safe_s" "$(since "$began" "$(first_low)")"
    another_process || fail "$1: no other process runs"
}

run_active $line
began=$(now)
systemctl stop $unit
driven_low || fail "SIGTERM: the safe level was not driven"
figure sigterm_safe_ms "$(awk -v a="$began" -v b="$(first_low)" 'BEGIN { printf "%d", 1000 * (b - a) }')"
line_is $line 1 || fail "SIGTERM: the line was not released"

# Nothing but the panic has driven a level within so short a time: the next process comes 2 s later.
run_active $line
began=$(now)
echo panic > /run/spotter/fault
until_true 20 "panic: another process runs" another_process
driven_low || fail "panic: the safe level was not driven"
ms=$(awk -v a="$began" -v b="$(first_low)" 'BEGIN { printf "%d", 1000 * (b - a) }')
figure panic_safe_ms "$ms"
[ "$ms" -lt 1900 ] || fail "panic: the safe level was driven only by the next process"
[ "$(driven $line | sed -n '1s/.* //p')" = 0 ] || fail "panic: the first level driven after it is not the safe one"
journal | grep -q 'a panic on demand' || fail "the panic is not in the journal"
runs_again

# What runs next sees nothing to act on, so the line stays as its start has left it.
run_active $line
began=$(now)
kill -KILL "$pid"
pattern black
safe_by_the_next sigkill
runs_again

run_active $line
cgroup=/sys/fs/cgroup$(systemctl show -P ControlGroup $unit)
began=$(now)
echo 1M > "$cgroup/memory.max"
pattern black
safe_by_the_next out_of_memory
journal | grep -qi 'oom' || fail "the journal does not say that memory ran out"
runs_again
pull $line down
