#!/bin/sh
# The whole way, from a camera to a pin and a broker, by the shipped unit: systemd starts it, it captures from vivid through V4L2, VGG16
# classifies, the rule fires, the line reads active from outside, a real client receives the event, and a stop leaves the line safe.
. /share/lib.sh
line=17

exposure=$(systemd-analyze security --offline=yes --no-pager /share/systemd/spotter.service | sed -n 's/.*exposure level.*: \([0-9.]*\) .*/\1/p')
figure exposure "$exposure"
awk -v e="$exposure" 'BEGIN { exit !(e != "" && e <= 1.6) }' || fail "the unit's exposure is above 1.6"

begin
cp /share/scenarios/first_event.toml $config
# An emulated core classifies some hundred times slower than a real one, and a stop waits for the frame in hand. All else is as shipped.
printf '[Service]\nWatchdogSec=900\nTimeoutStartSec=300\nTimeoutStopSec=300\n' | drop_in emulation
say "drop-in for emulation: WatchdogSec=900, TimeoutStartSec=300, TimeoutStopSec=300"
spotter check --config /etc/spotter/spotter.toml || fail "spotter check refuses the scenario's configuration"

pull $line up
line_is $line 1 || fail "the pull-up does not show before the start"
start_broker

started=$(now)
systemctl start $unit || fail "the unit does not start"
figure ready_s "$(since "$started")"
pid=$(systemctl show -P MainPID $unit)
[ "$(ps -o user= -p "$pid")" = spotter ] || fail "the daemon does not run as the user spotter"
# With the pull on the other side, a level that reads low is a level that is driven.
driven $line | sed -n '1s/.* //p' | grep -qx 0 || fail "the first level driven is not the safe one"

# From here the pull is down: a line that reads active is driven active.
pull $line down
until_true 600 "the line reads active" line_is $line 1
active=$(driven $line | awk '$2 == 1 { print $1; exit }')
[ -n "$active" ] || fail "nobody drove the line"
figure line_active_s "$(since "$started" "$active")"

event='"rule":"anything".*"state":"on"'
told() { grep -q " spotter/board/.* {.*$event" /tmp/mqtt.log; }
until_true 60 "mosquitto_sub receives the event" told
message=$(grep -m1 " spotter/board/.* {.*$event" /tmp/mqtt.log)
figure message_s "$(since "$started" "${message%% *}")"
say "the message: ${message#* }"
figure class "$(printf '%s\n' "$message" | sed -n 's/.*"label":"\([^"]*\)".*/\1/p')"
figure capture_to_decision_ms "$(printf '%s\n' "$message" | sed -n 's/.*"latency_ms":\([0-9]*\).*/\1/p')"
logged() { journal | grep -q "$event"; }
until_true 10 "the event is in the journal" logged
grep -q ' spotter/board/.* online$' /tmp/mqtt.log || fail "no birth message"
figure rss_mb "$(awk '/^VmHWM/ { printf "%d", $2 / 1024 }' "/proc/$pid/status")"

# The pull is up again: after the release it shows, and what was driven last before it is in the kernel's record.
pull $line up
stopping=$(now)
systemctl stop $unit
figure stop_s "$(since "$stopping")"
[ "$(systemctl show -P ExecMainStatus $unit)" = 0 ] || fail "the daemon's exit status is not 0"
[ "$(systemctl show -P Result $unit)" = success ] || fail "the stop was not clean: $(systemctl show -P Result $unit)"
[ "$(systemctl show -P NRestarts $unit)" = 0 ] || fail "the daemon was restarted"
say "levels driven, with their times: $(driven $line | tr '\n' ';')"
[ "$(driven $line | tail -1 | cut -d' ' -f2)" = 0 ] || fail "the last level driven is not the safe one"
line_is $line 1 || fail "the line was not released: the pull-up does not show"
offline() { tail -3 /tmp/mqtt.log | grep -q ' spotter/board/.* offline$'; }
until_true 10 "the broker says offline" offline
say "passed"
journalctl --no-pager -o short-monotonic -u $unit | tail -20
