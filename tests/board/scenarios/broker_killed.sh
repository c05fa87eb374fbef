#!/bin/sh
# Mosquitto is killed -9 again and again under load: `online` is back within 5 s of the broker, no event is lost that the outbox had
# room for, what it had no room for is what the counter says, and the cameras do not notice.
. /share/lib.sh
begin
# Two photos in turns: the rule turns on or off with each.
configure << 'E2'
[[camera]]
name = "photos"
files = "/usr/local/share/spotter/photos"
repeat = true
live = true
fps = 6

[[rule]]
name = "red"
cameras = ["photos"]
classes = ["red"]
actions = ["broker", "file"]

[action.broker]
type = "mqtt"
url = "mqtt://127.0.0.1"
outbox = 100

[action.file]
type = "log"
path = "/var/lib/spotter/events.jsonl"
E2
printf 'listener 1884 127.0.0.1\nallow_anonymous true\npersistence false\n' > /tmp/mosquitto.conf

# The daemon's way to the broker is opened only when the witness listens: what the broker acknowledges, the witness has received.
start_broker_behind_witness() {
    mosquitto -c /tmp/mosquitto.conf > /tmp/mosquitto.log 2>&1 &
    broker=$!
    until_true 20 "the broker takes connections" mosquitto_pub -p 1884 -t nothing -n
    (mosquitto_sub -p 1884 -t '#' -F '%t %p' & echo $! > /tmp/subscriber; wait) |
        while IFS= read -r line; do echo "$(now) $line"; done >> /tmp/mqtt.log &
    mark=$(now)
    until_true 20 "the witness listens" witness "$mark"
    opened=$(now)
    systemd-socket-activate -l 127.0.0.1:1883 /usr/lib/systemd/systemd-socket-proxyd 127.0.0.1:1884 2> /dev/null &
    way=$!
}
witness() { mosquitto_pub -p 1884 -t marker -m "$1" && grep -q " marker $1\$" /tmp/mqtt.log; }
kill_broker() {
    kill -KILL $way $broker || :
    wait $way $broker 2> /dev/null || :
    # What the broker has handed over before its end may still be on the witness's way.
    sleep 1
    kill -KILL "$(cat /tmp/subscriber)" || :
}
online_at() { received spotter/board/status | awk -v from="$opened" '$1 > from && $2 == "online" { print $1; exit }'; }
online() { [ -n "$(online_at)" ]; }
rate() { # frames of the camera in a second
    a=$(metric "$captured") b=$(now)
    sleep "$1"
    awk -v n=$(($(metric "$captured") - a)) -v t="$(since "$b")" 'BEGIN { printf "%.2f", n / t }'
}
dropped() { metric 'spotter_outbox_dropped_total{action="broker"}'; }

start_broker_behind_witness
start_spotter
until_true 20 "online" online
calm=$(rate 5)

worst=0 n=$(count 20 5)
for _ in $(seq "$n"); do
    kill_broker
    sleep 2
    start_broker_behind_witness
    until_true 20 "online again" online
    back=$(since "$opened" "$(online_at)")
    worst=$(awk -v a="$worst" -v b="$back" 'BEGIN { print (b > a ? b : a) }')
    awk -v t="$back" 'BEGIN { exit !(t <= 5) }' || fail "online only after $back s"
    sleep 2
done
figure kills "$n"
figure online_worst_s "$worst"
[ "$(dropped)" = 0 ] || fail "$(dropped) events were dropped, and the outbox had room"

# Longer than the outbox lasts.
kill_broker
stormy=$(rate 30)
figure frames_per_s "$calm, broker away $stormy"
awk -v a="$calm" -v b="$stormy" 'BEGIN { exit !(b >= 0.8 * a) }' || fail "the camera suffers: $calm frames/s before, $stormy while the broker is away"
start_broker_behind_witness
until_true 20 "online again" online
drained() { [ "$(metric 'spotter_outbox_depth{action="broker"}')" -le 2 ]; }
until_true 30 "the outbox is drained" drained
lost=$(dropped)
still_the_same
systemctl stop $unit
# A line takes the witness a while.
last=$(tail -1 /var/lib/spotter/events.jsonl | grep -o '"id":"[^"]*"')
last_arrives() { grep -q "$last" /tmp/mqtt.log; }
until_true 60 "the last event arrives" last_arrives
ids() { grep -o '"id":"[^"]*"' "$1" | sort -u; }
ids /var/lib/spotter/events.jsonl > /tmp/happened
awk '$2 == "spotter/board/event"' /tmp/mqtt.log > /tmp/arrived.log
ids /tmp/arrived.log > /tmp/arrived
missing=$(comm -23 /tmp/happened /tmp/arrived | wc -l)
figure events "$(wc -l < /tmp/happened)"
figure dropped_by_counter "$lost"
figure missing "$missing"
[ "$lost" -gt 0 ] || fail "the last outage was too short to show anything"
[ "$missing" = "$lost" ] || fail "$missing events did not arrive, and the counter says $lost"
kill_broker
