#!/bin/sh
# Another program holds a line: the message names it, everything else works, and the line is taken when it is free.
. /share/lib.sh
begin
gpioset -c "$GPIO_CHIP" 17=0 &
holder=$!
held() { gpioinfo -c "$GPIO_CHIP" 17 | grep -q gpioset; }
until_true 10 "gpioset holds the line" held
configure << 'E2'
[[rule]]
name = "red"
classes = ["red"]
actions = ["held", "free", "broker"]

[action.held]
type = "gpio"
chip = "edge-sim"
line = 17
safe = "low"

[action.free]
type = "gpio"
chip = "edge-sim"
line = 18
safe = "low"

[action.broker]
type = "mqtt"
url = "mqtt://127.0.0.1"
E2
start_broker
start_spotter
said() { journal | grep -q 'held by "gpioset'; }
until_true 20 "the message names the holder" said
say "$(journal | grep 'held by "gpioset' | head -1)"
pattern red
until_true 20 "the other line follows" line_is 18 1
told() { received spotter/board/event | grep -q '"rule":"red".*"state":"on"'; }
until_true 20 "the broker hears of it" told
# LimitNICE= of the unit, in a user namespace of the unit's own.
figure pin_niceness "$(niceness 'action free')"
[ "$(niceness 'action free')" = -10 ] || fail "the pin's thread does not go ahead of the others: $(ps -L -p "$pid" -o ni=,comm= | tr '\n' ';')"
kill $holder
freed=$(now)
until_true 40 "the line is taken and driven" line_is 17 1
figure taken_s "$(since "$freed")"
still_the_same
