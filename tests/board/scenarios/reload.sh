#!/bin/sh
# `systemctl reload` with a good file: it is in force without the camera's stream or the broker's connection being touched. With a bad one, and
# with none at all: the old one stays in force, and the journal and the status line say why.
. /share/lib.sh
begin
line=17

rule_for() { # CLASS
    configure << E2
[[rule]]
name = "colour"
classes = ["$1"]
hits = 1
window = 1
hold = "0s"
cooldown = "0s"
actions = ["lamp", "broker"]

[action.lamp]
type = "gpio"
chip = "edge-sim"
line = $line
mode = "follow"
safe = "low"

[action.broker]
type = "mqtt"
url = "mqtt://127.0.0.1"
E2
}

opens='spotter_camera_opens_total{camera="vivid"}'
failures='spotter_camera_failures_total{camera="vivid"}'
connects='spotter_action_connects_total{action="broker"}'
applied='spotter_reloads_total{outcome="applied"}'
refused='spotter_reloads_total{outcome="refused"}'
# The camera's open file by its number and its place in the kernel's table: another open of the same node would have another.
camera_file() {
    for link in "/proc/$pid/fd/"*; do
        [ "$(readlink "$link")" != "$VIDEO" ] || echo "${link##*/} $(busybox stat -L -c %i "$link") $(grep -h ino: "/proc/$pid/fdinfo/${link##*/}")"
    done
}
# The longest that no frame came over the time of a reload, by the camera's own count. A figure and no bar: a sample takes a starved emulator longer
# than a frame lasts.
watch_frames() {
    last=$(metric "$captured") since=$(now) worst=0
    while [ -e /tmp/watching ]; do
        count=$(metric "$captured")
        if [ "$count" != "$last" ]; then
            gap=$(since "$since")
            worst=$(awk -v a="$worst" -v b="$gap" 'BEGIN { print (b > a ? b : a) }')
            last=$count since=$(now)
        fi
    done
    echo "$worst" > /tmp/worst
}
acts_on() { # PATTERN: the rule turns on with it, and off with another
    pattern "$1"
    until_true 10 "the line reads active on $1" line_is $line 1
    pattern black
    until_true 10 "the line is let go after $1" line_is $line 0
}

pattern black
rule_for red
start_broker
start_spotter
until_true 20 "the camera is online" camera_is online
until_true 20 "the broker is connected" metric_is 'spotter_action_up{action="broker"}' 1
acts_on red
statuses() { received spotter/board/status | wc -l; }
before="$(camera_file) opens $(metric "$opens") failures $(metric "$failures") connects $(metric "$connects") statuses $(statuses)"
say "the camera: $before"

# Nothing of it may change by any of the reloads.
undisturbed() { # WHAT
    after="$(camera_file) opens $(metric "$opens") failures $(metric "$failures") connects $(metric "$connects") statuses $(statuses)"
    [ "$after" = "$before" ] || fail "$1: before '$before', after '$after'"
    still_the_same
}

: > /tmp/watching
watch_frames &
watcher=$!
rule_for blue
asked=$(now)
systemctl reload $unit || fail "systemctl reload"
until_true 20 "the good file is applied" metric_is "$applied" 1
figure good_applied_s "$(since "$asked")"
acts_on blue
rm /tmp/watching
wait $watcher
figure longest_without_a_frame_s "$(cat /tmp/worst)"
undisturbed "a good file"
pattern red
sleep 1
line_is $line 0 || fail "the old rule still acts"
pattern black

status_line() { systemctl show -P StatusText $unit; }
tells() { status_line | grep -q 'not in force'; }
refuses() { # WHAT COUNT SAID
    systemctl reload $unit || fail "$1: systemctl reload"
    until_true 20 "$1 is refused" metric_is "$refused" "$2"
    until_true 5 "$1: the status line tells it" tells
    say "$1: $(status_line)"
    journal -p err | grep 'is not applied' | tail -1 | grep -q "$3" || fail "$1: the journal does not say why: $(journal -p err | tail -3)"
    acts_on blue
    undisturbed "$1"
    [ "$(systemctl is-active $unit)" = active ] || fail "$1: the unit is $(systemctl is-active $unit)"
}
sed -i 's/^hits = 1$/hitz = 1/' $config
refuses "a bad file" 1 hitz
mv $config /tmp/away.toml
refuses "a vanished file" 2 "$config"

# Once the file is there and right again, it is in force, and nothing is complained about any more.
rule_for red
systemctl reload $unit
until_true 20 "the good file is applied" metric_is "$applied" 2
quiet() { ! tells; }
until_true 5 "the status line is clear" quiet
acts_on red
undisturbed "a good file again"
figure reloads "$(metric "$applied") applied, $(metric "$refused") refused"
