# shellcheck shell=sh
# For the scenarios, which source it in the guest. A scenario is a shell program; it passes by exiting 0, and writes figures for the table.
set -eu

figures=${figures:-/share/figures}
unit=spotter.service
config=/etc/spotter/spotter.toml
journal_from=

# How often or how long, thoroughly (make test-board-all) and in the gate: count THOROUGHLY QUICKLY
count() { if [ -n "${THOROUGH:-}" ]; then echo "$1"; else echo "$2"; fi; }

# Seconds since boot, the clock of everything that is measured here.
now() { read -r up _ < /proc/uptime; echo "$up"; }

since() { awk -v a="$1" -v b="${2:-$(now)}" 'BEGIN { printf "%.1f", b - a }'; }

figure() { # NAME VALUE
    echo "$1 $2" >> $figures
    echo "[$(now)] $1: $2"
}

say() { echo "[$(now)] $*"; }

fail() {
    say "FAILED: $*"
    systemctl status --no-pager --full $unit || :
    journalctl --no-pager -q -o short-monotonic -u $unit ${journal_from:+--after-cursor "$journal_from"} | tail -40
    busybox wget -q -O - http://127.0.0.1:8080/metrics 2> /dev/null | grep '_total\|_on{\|_up{\|_depth{' || :
    exit 1
}

# Waits until a command succeeds: until SECONDS WHAT COMMAND...
until_true() {
    limit=$1 what=$2
    shift 2
    end=$(awk -v a="$(now)" -v b="$limit" 'BEGIN { printf "%d", a + b }')
    while ! "$@"; do
        [ "$(now | cut -d. -f1)" -lt "$end" ] || fail "$what: not within $limit s"
        systemctl is-failed --quiet $unit && fail "$what: the unit has failed"
        sleep 0.1
    done
}

# Installs the package, if that has not been done in this boot, and leaves the service stopped.
install_spotter() {
    if ! dpkg-query -W -f '${db:Status-Status}' spotter 2> /dev/null | grep -qx installed; then
        mkdir -p /usr/local/share/spotter /etc/spotter
        cp -r /share/models/* /share/photos /usr/local/share/spotter/
        # The default configuration's model takes an emulated core minutes to start.
        cp /share/scenarios/base.toml $config
        dpkg --force-confold -i /share/spotter.deb > /tmp/dpkg.log 2>&1 || { cat /tmp/dpkg.log; exit 1; }
    fi
    systemctl stop $unit
}

# The state that every scenario starts from: the package, a stopped service as shipped, no broker, the camera's bars, pulls down.
begin() {
    install_spotter
    systemctl reset-failed $unit 2> /dev/null || :
    rm -rf /etc/systemd/system/$unit.d /run/systemd/system/$unit.d /var/lib/spotter /tmp/mqtt.log
    systemctl daemon-reload
    stop_broker
    if [ -e "$VIDEO" ]; then camera percentage_of_dropped_buffers=0; camera test_pattern=0; else modprobe vivid; fi
    # The driver's own text would cover a third of a small picture.
    camera osd_text_mode=2
    for pulled in 17 18 22 27; do pull $pulled down; done
    trace_gpio
    journal_from=$(journalctl -q -n 0 --show-cursor | sed -n 's/^-- cursor: //p')
}

# A drop-in for the unit, from stdin: drop_in NAME
drop_in() {
    mkdir -p /etc/systemd/system/$unit.d
    cat > "/etc/systemd/system/$unit.d/$1.conf"
    systemctl daemon-reload
}

# The configuration of most scenarios, the quick model and the camera; the rest from stdin. Another beginning: configure FILE
configure() {
    mkdir -p /etc/spotter
    cat "${1:-/share/scenarios/base.toml}" - > $config
    chmod 644 $config
    spotter check --config $config > /tmp/check 2>&1 || { cat /tmp/check; fail "spotter check refuses the scenario's configuration"; }
}

start_spotter() {
    systemctl start $unit || fail "the unit does not start"
    pid=$(main_pid)
}

# The service with the program that has faults on demand (src/daemon/faults.rs); everything else as shipped.
with_faults() {
    install -m755 /share/spotter-faults /usr/local/bin/spotter-faults
    printf '[Service]\nExecStart=\nExecStart=/usr/local/bin/spotter-faults run --config %s\n' $config | drop_in faults
}

# A rule that drives a line while the camera sees red, for a configuration: red_lamp LINE
red_lamp() {
    cat << E2
[[rule]]
name = "red"
classes = ["red"]
actions = ["lamp"]

[action.lamp]
type = "gpio"
chip = "edge-sim"
line = $1
mode = "follow"
safe = "low"
E2
}

# The configuration of most scenarios with such a rule: lamp_on_red LINE
lamp_on_red() { red_lamp "$1" | configure; }

# Starts with a line that is driven active, and then its pull up, so that a level that reads low is driven: run_active LINE
run_active() {
    systemctl reset-failed $unit 2> /dev/null || :
    pattern red
    start_spotter
    pull "$1" down
    until_true 30 "the line reads active" line_is "$1" 1
    pull "$1" up
    echo > /sys/kernel/tracing/trace
}
another_process() { [ "$(main_pid)" != "$pid" ] && [ "$(main_pid)" != 0 ]; }

# The niceness of the daemon's thread of that name: niceness NAME
niceness() { ps -L -p "$pid" -o ni=,comm= | sed -n "s/^ *\(-\{0,1\}[0-9]*\) $1\$/\1/p"; }

main_pid() { systemctl show -P MainPID $unit; }
restarts() { systemctl show -P NRestarts $unit; }
journal() { journalctl --no-pager -q -u $unit -o cat ${journal_from:+--after-cursor "$journal_from"} "$@"; }

# The process that was started is the one that runs, and nothing in it has panicked.
still_the_same() {
    [ "$(restarts)" = 0 ] || fail "the daemon was restarted"
    [ "$(main_pid)" = "$pid" ] || fail "it is another process"
    ! journal | grep -i 'panicked' || fail "a panic"
}

# One sample of /metrics, by the beginning of its line: metric 'spotter_frames_captured_total{camera="vivid"}'
metric() { busybox wget -q -O - http://127.0.0.1:8080/metrics | awk -v wanted="$1" 'index($0, wanted " ") == 1 { print $2 }'; }
metric_is() { [ "$(metric "$1")" = "$2" ]; }
metric_above() { awk -v a="$(metric "$1")" -v b="$2" 'BEGIN { exit !(a != "" && a > b) }'; }

captured='spotter_frames_captured_total{camera="vivid"}'
classified='spotter_frames_classified_total{camera="vivid"}'
frames_come() { metric_above "$captured" "$1"; }

camera() { v4l2-ctl -d "$VIDEO" -c "$1"; } # CONTROL=VALUE
pattern() { # bars|black|white|red|green|blue
    case $1 in
        bars) camera test_pattern=0 ;; black) camera test_pattern=5 ;; white) camera test_pattern=6 ;;
        red) camera test_pattern=7 ;; green) camera test_pattern=8 ;; blue) camera test_pattern=9 ;;
    esac
}

# A broker on port 1883 and a subscriber whose lines are stamped with the time of their arrival: `UPTIME TOPIC PAYLOAD`.
start_broker() {
    systemctl start mosquitto.service
    listen
}

listen() {
    (mosquitto_sub -h 127.0.0.1 -q 1 -t '#' -F '%t %p' & echo $! > /tmp/subscriber; wait) |
        while IFS= read -r line; do echo "$(now) $line"; done >> /tmp/mqtt.log &
    until_true 30 "the subscriber is served" marker "$(now)"
}

stop_broker() {
    [ ! -e /tmp/subscriber ] || kill "$(cat /tmp/subscriber)" 2> /dev/null || :
    rm -f /tmp/subscriber
    systemctl stop mosquitto.service
}

marker() {
    mosquitto_pub -h 127.0.0.1 -t marker -m "here $1" 2> /dev/null && grep -q " marker here $1\$" /tmp/mqtt.log
}

# One simulated line, from outside the daemon.
line_value() { cat "$GPIO_SIM/sim_gpio$1/value"; }
line_is() { [ "$(line_value "$1")" = "$2" ]; }
pull() { echo "pull-$2" > "$GPIO_SIM/sim_gpio$1/pull"; } # LINE up|down

# The kernel's own record of every level that is driven on a line, stamped by the same clock.
trace_gpio() {
    mountpoint -q /sys/kernel/tracing || mount -t tracefs tracefs /sys/kernel/tracing
    echo mono > /sys/kernel/tracing/trace_clock
    echo 1 > /sys/kernel/tracing/events/gpio/enable
    echo > /sys/kernel/tracing/trace
}

# `SECONDS LEVEL` for each level that was driven on a line of the simulated chip: driven LINE. The record counts lines over all chips.
driven() { # LINE
    folder=$(dirname "$(grep -l '^edge-sim$' /sys/class/gpio/gpiochip*/label)")
    number=$(($(cat "$folder/base") + $1))
    sed -n "s/.* \([0-9.]*\): gpio_value: $number set \([01]\)\$/\1 \2/p" /sys/kernel/tracing/trace
}

last_driven() { driven "$1" | tail -1 | cut -d' ' -f2; }

# Lines that arrived on a topic, `UPTIME PAYLOAD`: received TOPIC
received() { awk -v topic="$1" '$2 == topic { t = $1; sub(/^[^ ]+ [^ ]+ /, ""); print t, $0 }' /tmp/mqtt.log; }
camera_state() { received spotter/board/camera/vivid/state | tail -1 | sed -n 's/.*"state":"\([a-z]*\)".*/\1/p'; }
camera_is() { [ "$(camera_state)" = "$1" ]; }
