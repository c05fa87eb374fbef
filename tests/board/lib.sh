# shellcheck shell=sh
# For the scenarios, which source it in the guest. A scenario is a shell program; it passes by exiting 0, and writes figures for the table.
set -eu

figures=/share/figures
unit=spotter.service

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
    journalctl --no-pager -o short-monotonic -u $unit | tail -40
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

# Puts everything where the package would: install_spotter CONFIG
install_spotter() {
    install -D -m755 /share/spotter /usr/bin/spotter
    install -D -m644 /share/systemd/spotter.service /usr/lib/systemd/system/spotter.service
    install -D -m644 /share/systemd/60-spotter.rules /usr/lib/udev/rules.d/60-spotter.rules
    install -D -m644 /share/systemd/spotter.sysusers /usr/lib/sysusers.d/spotter.conf
    install -D -m644 "$1" /etc/spotter/spotter.toml
    mkdir -p /usr/share/spotter
    cp -r /share/models /usr/share/spotter/
    systemd-sysusers
    udevadm control --reload
    udevadm trigger --settle --subsystem-match=gpio --action=add
    systemctl daemon-reload
}

# A broker on port 1883 and a subscriber whose lines are stamped with the time of their arrival: `UPTIME TOPIC PAYLOAD`.
start_broker() {
    systemctl start mosquitto.service
    mosquitto_sub -h 127.0.0.1 -q 1 -t '#' -F '%t %p' | while IFS= read -r line; do echo "$(now) $line"; done > /tmp/mqtt.log &
    until_true 30 "the subscriber is served" marker
}

marker() {
    mosquitto_pub -h 127.0.0.1 -t marker -m here
    grep -q ' marker here$' /tmp/mqtt.log
}

# One simulated line, from outside the daemon.
line_value() { cat "$GPIO_SIM/sim_gpio$1/value"; }
line_is() { [ "$(line_value "$1")" = "$2" ]; }
pull() { echo "pull-$2" > "$GPIO_SIM/sim_gpio$1/pull"; } # LINE up|down

# The kernel's own record of every level that is driven on a line, stamped by the same clock.
trace_gpio() {
    mount -t tracefs tracefs /sys/kernel/tracing
    echo mono > /sys/kernel/tracing/trace_clock
    echo 1 > /sys/kernel/tracing/events/gpio/enable
}

# `SECONDS LEVEL` for each level that was driven on a line of the simulated chip: driven LINE. The record counts lines over all chips.
driven() {
    folder=$(dirname "$(grep -l '^edge-sim$' /sys/class/gpio/gpiochip*/label)")
    number=$(($(cat "$folder/base") + $1))
    sed -n "s/.* \([0-9.]*\): gpio_value: $number set \([01]\)\$/\1 \2/p" /sys/kernel/tracing/trace
}
