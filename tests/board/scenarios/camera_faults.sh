#!/bin/sh
# What a camera can do wrong, by the virtual camera's own fault injection: every frame dropped, frames flagged as damaged, failing
# REQBUFS, QBUF and STREAMON, a fatal streaming error, a disconnect. The daemon tells it, and has a good frame within 2 s of its end.
. /share/lib.sh
begin
configure << 'E2'
[[rule]]
name = "red"
classes = ["red"]
actions = ["broker"]

[action.broker]
type = "mqtt"
url = "mqtt://127.0.0.1"
E2
start_broker
start_spotter
until_true 20 "the camera is online" camera_is online

online_since() { received spotter/board/camera/vivid/state | awk -v from="$1" '$1 > from && /"state":"online"/ { print $1; exit }'; }
is_online_since() { [ -n "$(online_since "$1")" ]; }
degraded_since() { received spotter/board/camera/vivid/state | awk -v from="$1" '$1 > from && /"state":"degraded"/ { print; exit }' | grep -q .; }

# The fault ends at END; the camera must be online again at most 2 s later.
recovers() { # NAME END
    until_true 15 "$1: the camera comes back" is_online_since "$2"
    back=$(since "$2" "$(online_since "$2")")
    figure "$1_s" "$back"
    awk -v t="$back" 'BEGIN { exit !(t <= 2.0) }' || fail "$1: $back s to the first good frame"
    still_the_same
}

# Damaged frames alone are no trouble for the camera; they are counted and not classified.
n=$(count 30 10)
for _ in $(seq "$n"); do
    camera inject_v4l2_buf_flag_error=1
    sleep 0.15
done
flagged=$(metric 'spotter_frames_dropped_total{camera="vivid",cause="error"}')
figure flagged_frames "$flagged of $n"
[ "$flagged" -ge 1 ] && [ "$flagged" -le "$n" ] || fail "$flagged frames were dropped for their flag, of $n injected"
camera_is online || fail "a flagged frame is not the camera's end"
still_the_same

began=$(now)
camera percentage_of_dropped_buffers=100
until_true 15 "all frames dropped: degraded" degraded_since "$began"
sleep "$(count 10 2)"
camera percentage_of_dropped_buffers=0
recovers all_dropped "$(now)"

# These fail once, when the stream is started again. Faults that follow each other within 5 s are answered ever more slowly.
for fault in reqbufs qbuf streamon; do
    sleep 6
    camera inject_vidioc_${fault}_error=1
    began=$(now)
    camera inject_fatal_streaming_error=1
    recovers $fault "$began"
    degraded_since "$began" || fail "$fault: nobody was told"
done
for fault in inject_fatal_streaming_error disconnect; do
    sleep 6
    began=$(now)
    camera $fault=1
    recovers $fault "$began"
    degraded_since "$began" || fail "$fault: nobody was told"
done

# The device itself goes, and with it the node.
driver=/sys/bus/platform/drivers/vivid
device=$(basename "$(ls -d $driver/vivid.*)")
began=$(now)
echo "$device" > $driver/unbind
until_true 15 "no node: degraded" degraded_since "$began"
[ ! -e "$VIDEO" ] || fail "the node is still there"
sleep "$(count 20 3)"
echo "$device" > $driver/bind
until_true 10 "the node is there" test -e "$VIDEO"
plugged=$(now)
until_true 15 "the node is back: the camera comes back" is_online_since "$plugged"
figure plugged_s "$(since "$plugged" "$(online_since "$plugged")")"
still_the_same
[ "$(metric 'spotter_frames_dropped_total{camera="vivid",cause="corrupt"}')" = 0 ] || fail "a frame did not decode"
