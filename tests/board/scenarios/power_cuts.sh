#!/bin/sh
# One boot of tests/board/power_cuts.sh, by its step: install, cold, again, last. All but the last end by asking for a power cut.
. /share/lib.sh
line=17
journal_from=
journal() { journalctl --no-pager -q -b -u $unit -o cat "$@"; }
cut_power() { : > /share/.board/cut; sleep 60; }

if [ "$1" = install ]; then
    install_spotter
    cat > $config << 'E2'
[device]
name = "board"

[model]
path = "/usr/local/share/spotter/pattern.onnx"

[page]

[[camera]]
name = "vivid"
device = "/dev/video0"
size = [320, 180]
fps = 10
fit = "stretch"

[[camera]]
name = "photos"
files = "/usr/local/share/spotter/photos"
repeat = true
live = true
fps = 5

[[rule]]
name = "bars"
cameras = ["vivid"]
classes = ["bars"]
actions = ["lamp", "broker"]

[[rule]]
name = "red"
cameras = ["photos"]
classes = ["red"]
armed_by = "mqtt"
actions = ["album", "file", "broker"]

[action.lamp]
type = "gpio"
chip = "edge-sim"
line = 17

[action.broker]
type = "mqtt"
url = "mqtt://127.0.0.1"

[action.album]
type = "snapshot"
folder = "/var/lib/spotter/snapshots"
count = 20

[action.file]
type = "log"
path = "/var/lib/spotter/events.jsonl"
E2
    spotter check --config $config
    # At the next boot camera and chip are there as on a real board, and a client listens from the beginning.
    echo vivid > /etc/modules-load.d/vivid.conf
    cat > /etc/systemd/system/board-gpio.service << 'E2'
[Unit]
Before=spotter.service
[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/usr/local/lib/board/gpio-sim
[Install]
WantedBy=multi-user.target
E2
    # Served before the service starts: the broker keeps no event for a client that comes later.
    cat > /etc/systemd/system/witness.service << 'E2'
[Unit]
After=mosquitto.service
Before=spotter.service
[Service]
Restart=always
RestartSec=200ms
ExecStart=/bin/sh -c 'mosquitto_sub -t "#" -F "%%t %%p" | while IFS= read -r line; do read -r up _ < /proc/uptime; echo "$up $line"; done >> /run/mqtt.log'
ExecStartPost=/bin/sh -c 'until mosquitto_pub -t marker -m here && grep -q marker /run/mqtt.log; do sleep 0.2; done'
[Install]
WantedBy=multi-user.target
E2
    systemctl enable --quiet board-gpio.service witness.service mosquitto.service $unit
    sync
    cut_power
fi

ln -sf /run/mqtt.log /tmp/mqtt.log
until_true 60 "the unit is active" systemctl is-active --quiet $unit
pid=$(main_pid)
until_true 60 "the line reads active" line_is $line 1
told() { received spotter/board/event | grep -q '"rule":"bars"'; }
until_true 60 "the event arrives at a client" told
if [ "$1" = cold ]; then
    mountpoint -q /sys/kernel/tracing || mount -t tracefs tracefs /sys/kernel/tracing
    figure ready_s "$(systemctl show -P ActiveEnterTimestampMonotonic $unit | awk '{ printf "%.1f", $1 / 1e6 }')"
    figure start_to_ready_s "$(awk -v a="$(systemctl show -P InactiveExitTimestampMonotonic $unit)" \
        -v b="$(systemctl show -P ActiveEnterTimestampMonotonic $unit)" 'BEGIN { printf "%.1f", (b - a) / 1e6 }')"
    figure line_active_s "$(driven $line | awk '$2 == 1 { printf "%.1f", $1; exit }')"
    figure message_s "$(received spotter/board/event | awk '/"rule":"bars"/ { print $1; exit }')"
fi

# What the last cut left.
! dmesg | grep 'EXT4-fs error' || fail "the file system has errors"
# The service writes on, and its album forgets the oldest pictures: one may be gone by the time it is looked at.
whole() { [ "$(tail -c 2 "$1" 2> /dev/null | busybox od -An -tx1 | tr -d ' ')" = ffd9 ] || [ ! -e "$1" ]; }
for picture in /var/lib/spotter/snapshots/*.jpg; do whole "$picture" || fail "$picture is half a picture"; done
! journal -p warning | grep -i 'armed\|arming' || fail "what was armed is not known any more"
[ "$(restarts)" = 0 ] || fail "it was restarted"
! journal | grep -i panicked || fail "a panic"

pictures() { ls /var/lib/spotter/snapshots | wc -l; }
some() { [ "$(pictures)" -gt 0 ]; }
mosquitto_pub -q 1 -t spotter/board/rule/red/armed/set -m ON
until_true 60 "pictures are written" some
if [ "$1" = last ]; then
    torn=$(tr -d '\0' < /var/lib/spotter/events.jsonl | grep -vc '^{.*}$' || :)
    figure events_kept "$(grep -c '^{.*}$' /var/lib/spotter/events.jsonl)"
    figure torn_lines "$torn"
    figure pictures "$(pictures)"
    systemctl stop $unit mosquitto.service
    exit 0
fi
# Busy with writing, and then the end, at some moment.
moment=$(($(busybox od -An -N1 -tu1 /dev/urandom) % 40 + 10))
for n in $(seq $moment); do
    mosquitto_pub -q 1 -t spotter/board/rule/red/armed/set -m "$([ $((n % 10)) = 9 ] && echo OFF || echo ON)"
    sleep 0.1
done
cut_power
