#!/bin/sh
# Input lines, moved from outside by their pulls: a part on an edge is judged once and answered on the pass or fail line; a switch arms a rule.
. /share/lib.sh
begin
configure << 'E2'
[input.sensor]
chip = "edge-sim"
line = 22

[[station]]
name = "gate"
camera = "vivid"
trigger = "sensor"
classes = ["red"]
timeout = "3s"
pass = ["good", "broker"]
fail = ["bad", "broker"]
fault = ["broker"]

[[rule]]
name = "blue"
classes = ["blue"]
armed_by = { chip = "edge-sim", line = 27 }
actions = ["lamp"]

[action.good]
type = "gpio"
chip = "edge-sim"
line = 17
mode = "pulse"
pulse = "50ms"

[action.bad]
type = "gpio"
chip = "edge-sim"
line = 18
mode = "pulse"
pulse = "50ms"

[action.lamp]
type = "gpio"
chip = "edge-sim"
line = 5

[action.broker]
type = "mqtt"
url = "mqtt://127.0.0.1"
E2
start_broker
start_spotter
until_true 20 "the camera streams" frames_come 5

verdicts() { received spotter/board/station/gate/verdict | wc -l; }
judged() { [ "$(verdicts)" -gt "$1" ]; }
pulses() { driven "$1" | grep -c ' 1$' || :; }
worst=0
part() { # LINE: the part is in front of the camera; the pulse must come on LINE
    before=$(verdicts) p=$(pulses "$1")
    edge=$(now)
    pull 22 up
    until_true 20 "a verdict" judged "$before"
    pull 22 down
    [ "$(pulses "$1")" = $((p + 1)) ] || fail "no pulse on line $1: $(received spotter/board/station/gate/verdict | tail -1)"
    ms=$(driven "$1" | awk -v a="$edge" '$2 == 1 { t = $1 } END { printf "%d", 1000 * (t - a) }')
    [ "$ms" -le "$worst" ] || worst=$ms
}
shown() { # PATTERN LABEL: it is what the next frames show
    pattern "$1"
    until_true 10 "a frame of the new pattern" frames_come $(($(metric "$captured") + 3))
}
n=$(count 20 3)
for _ in $(seq "$n"); do
    shown red
    part 17
    shown bars
    part 18
done
sleep 1
figure parts "$(verdicts) of $((2 * n))"
[ "$(verdicts)" = $((2 * n)) ] || fail "$(verdicts) verdicts on $((2 * n)) parts"
[ "$(pulses 17)" = "$n" ] && [ "$(pulses 18)" = "$n" ] || fail "pulses: $(pulses 17) pass, $(pulses 18) fail"
figure edge_to_pulse_worst_ms "$worst"

pattern blue
sleep 2
[ "$(last_driven 5)" = 0 ] || fail "a rule that is not armed acts"
pull 27 up
armed=$(now)
until_true 10 "armed, the rule acts" line_is 5 1
figure armed_to_line_s "$(since "$armed" "$(driven 5 | awk '$2 == 1 { t = $1 } END { print t }')")"
pull 27 down
until_true 10 "disarmed, it stops" line_is 5 0
still_the_same
