#!/usr/bin/env bash
# `make demo`: runs config/demo.toml against a Mosquitto of its own, then shows what a subscriber received.
# The broker listens on a free loopback port with a temporary configuration; a broker that the machine already has is left alone.
# Exits by the daemon's exit code; no process is left behind.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
PATH=$PATH:/usr/sbin # where Debian puts mosquitto

target=${CARGO_TARGET_DIR:-target}
out=$target/demo
spotter=$target/release/spotter
broker='' port='' subscriber=''

die() { printf 'demo: %s\n' "$*" >&2; exit 1; }

end() {
    local pid
    for pid in $subscriber $broker; do kill "$pid" 2> /dev/null || :; done
    wait 2> /dev/null || :
}
trap end EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

listening() { (exec 3<> "/dev/tcp/127.0.0.1/$port") 2> /dev/null; }

# The kernel is asked by trying: a broker whose port is taken ends at once, and the next port is tried.
start_broker() {
    local try wait
    for try in 1 2 3 4 5 6 7 8 9 10; do
        port=$((20000 + RANDOM % 12000))
        ! listening || continue
        printf 'listener %d 127.0.0.1\nallow_anonymous true\npersistence false\nlog_dest stdout\n' "$port" > "$out/mosquitto.conf"
        mosquitto -c "$out/mosquitto.conf" > "$out/mosquitto.log" 2>&1 &
        broker=$!
        for ((wait = 0; wait < 100; wait++)); do
            kill -0 "$broker" 2> /dev/null || break
            ! listening || return 0
            sleep 0.05
        done
        kill "$broker" 2> /dev/null || :
        wait "$broker" 2> /dev/null || :
        broker=
    done
    cat "$out/mosquitto.log" >&2
    die "no broker after $try ports; its last words are above"
}

publish() { mosquitto_pub -h 127.0.0.1 -p "$port" "$@"; }

# Publishes a marker until the subscriber has written it down: from then on (or up to then) nothing is missed,
# because a broker hands a subscriber its messages in order.
mark() {
    local wait
    for ((wait = 0; wait < 100; wait++)); do
        publish -t "demo/$1" -m "$1"
        ! grep -q "^demo/$1 " "$out/mqtt.log" || return 0
        sleep 0.1
    done
    die "the subscriber is not being served: see $out/mosquitto.log"
}

[ -x "$spotter" ] || die "$spotter is missing: run 'make demo' (or 'cargo build --release' first)"
rm -rf "$out"
mkdir -p "$out"
start_broker
mosquitto_sub -h 127.0.0.1 -p "$port" -q 1 -t '#' -F '%t %p' > "$out/mqtt.log" 2>&1 &
subscriber=$!
mark begin

printf 'demo: broker on 127.0.0.1:%d; spotter run --once --config config/demo.toml --sheet target/demo/sheet.png\n\n' "$port"
code=0
SPOTTER_DEMO_BROKER=mqtt://127.0.0.1:$port "$spotter" run --once --config config/demo.toml --sheet target/demo/sheet.png || code=$?

mark end
messages=$(grep -v '^demo/' "$out/mqtt.log" || :)
printf '\nmosquitto_sub received %d messages (%s):\n' "$(grep -c . <<< "$messages" || :)" "$out/mqtt.log"
grep '^[^ ]*/\(status\|state\) ' <<< "$messages" | cut -c1-100 | sed 's/^/  /' || printf '  none of them a status or a state\n'
exit "$code"
