#!/bin/sh
# A full disk, a read-only root, a clock at 1970: it runs; what cannot be written is counted and said once; no file is ever half written.
. /share/lib.sh
begin
settings='
[[camera]]
name = "photos"
files = "/usr/local/share/spotter/photos"
repeat = true
live = true
fps = 4

[[rule]]
name = "red"
cameras = ["photos"]
classes = ["red"]
actions = ["file", "album", "lamp"]

[action.file]
type = "log"
path = "/var/lib/spotter/events.jsonl"

[action.album]
type = "snapshot"
folder = "/var/lib/spotter/snapshots"

[action.lamp]
type = "gpio"
chip = "edge-sim"
line = 17
'
lost() { metric "spotter_outbox_dropped_total{action=\"$1\"}"; }
loses() { [ "$(lost "$1")" -gt "${2:-0}" ]; }
edges() { driven 17 | wc -l; }
acts() { [ "$(edges)" -gt "$1" ]; }
# Every picture ends as a JPEG ends.
whole_pictures() {
    for picture in /var/lib/spotter/snapshots/*.jpg; do
        [ -e "$picture" ] || continue
        [ "$(tail -c 2 "$picture" | busybox od -An -tx1 | tr -d ' ')" = ffd9 ] || fail "$picture is half a picture"
    done
}
said_once() { # WHAT
    n=$(journal -p warning | grep -c "\"$1\"" || :)
    [ "$n" -ge 1 ] || fail "nobody said that $1 cannot be written"
    [ "$n" -le "$2" ] || fail "it was said $n times that $1 cannot be written"
}

# A disk of 64 kB, full before long.
printf '%s' "$settings" | configure
install -d -o spotter -g spotter -m700 /var/lib/spotter
mount -t tmpfs -o size=64k,mode=700,uid="$(id -u spotter)",gid="$(id -g spotter)" full /var/lib/spotter
head -c 40000 /dev/zero > /var/lib/spotter/filler
start_spotter
until_true 90 "the event file's losses are counted" loses file
until_true 90 "the snapshots' losses are counted" loses album
said_once file 2
said_once album 2
before=$(edges)
until_true 20 "the pin goes on" acts "$before"
whole_pictures
figure full_disk_lost "$(lost file) events, $(lost album) snapshots"
rm /var/lib/spotter/filler
mount -o remount,size=4m /var/lib/spotter
size=$(stat -c %s /var/lib/spotter/events.jsonl)
grows() { [ "$(stat -c %s /var/lib/spotter/events.jsonl)" -gt "$size" ]; }
until_true 30 "the event file grows again" grows
torn=$(grep -vc '^{.*}$' /var/lib/spotter/events.jsonl || :)
figure torn_lines "$torn"
[ "$torn" -le 1 ] || fail "$torn lines of the event file are torn"
whole_pictures
still_the_same
systemctl stop $unit
umount /var/lib/spotter

# The root read-only, as when the file system has found an error or the card its end.
systemctl start $unit # its folders are there, as after any first start
systemctl stop $unit
rm -rf /var/lib/spotter/*
mount -o remount,ro /
start_spotter
until_true 30 "the event file's losses are counted" loses file
until_true 30 "the snapshots' losses are counted" loses album
before=$(edges)
until_true 20 "the pin goes on" acts "$before"
figure read_only_lost "$(lost file) events, $(lost album) snapshots"
still_the_same
systemctl stop $unit
mount -o remount,rw /

# The clock at the beginning of time, and set while it runs.
today=$(date +%s)
uptime=$(now)
# No earlier than the board has run: the kernel refuses that.
date -s "@$(awk -v up="$uptime" 'BEGIN { printf "%d", up + 10 }')" > /dev/null
start_spotter
before=$(edges)
until_true 20 "the pin moves in 1970" acts "$before"
written() { [ -s /var/lib/spotter/events.jsonl ]; }
until_true 20 "events are written in 1970" written
grep -q '"captured":"1970-' /var/lib/spotter/events.jsonl || fail "the events of 1970 are not of 1970"
date -s "@$(awk -v a="$today" -v b="$(since "$uptime")" 'BEGIN { printf "%d", a + b }')" > /dev/null
current() { tail -1 /var/lib/spotter/events.jsonl | grep -q "\"captured\":\"$(date +%Y)-"; }
until_true 20 "events after the clock is set are of today" current
before=$(edges)
until_true 20 "the pin moves on" acts "$before"
figure clock_step_years "$(awk -v a="$today" 'BEGIN { printf "%d", a / 31556952 }')"
still_the_same
systemctl stop $unit
