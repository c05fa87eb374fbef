#!/bin/sh
# Two daemons with one client id; a wrong password; a certificate that is not yet valid by a clock that is wrong. Each is said in clear
# words, tried again ever more slowly, and over when its cause is.
. /share/lib.sh
begin
rules='
[[rule]]
name = "red"
classes = ["red"]
actions = ["broker"]

[action.broker]
type = "mqtt"
'
up() { metric_is 'spotter_action_up{action="broker"}' 1; }
down() { metric_is 'spotter_action_up{action="broker"}' 0; }
said() { journal | grep -q "$1"; }
refused() { journal -p err | grep -q '"broker"'; }

# One client id. The other one has no page and no camera of the service's.
printf '%surl = "mqtt://127.0.0.1"\n' "$rules" | configure
printf '[device]\nname = "board"\n[model]\npath = "/usr/local/share/spotter/pattern.onnx"\n[[camera]]\nname = "photos"\nfiles = "/usr/local/share/spotter/photos"\nrepeat = true\nlive = true\nfps = 1\n%surl = "mqtt://127.0.0.1"\n' \
    "$rules" > /tmp/other.toml
start_broker
start_spotter
until_true 30 "connected" up
spotter run --config /tmp/other.toml > /tmp/other.log 2>&1 &
other=$!
connects() { grep -c "New client connected.*spotter" /var/log/mosquitto/mosquitto.log; }
until_true 60 "it says that another client may use its id" said 'does another client use the id'
say "$(journal | grep 'does another client' | head -1)"
from=$(connects)
sleep 20
n=$(($(connects) - from))
figure connections_in_20_s_of_two "$n"
[ "$n" -le 30 ] || fail "$n connections in 20 s: they do not back off"
kill $other
ended=$(now)
until_true 40 "alone again, it is well" up
figure same_id_over_s "$(since "$ended")"
still_the_same
systemctl stop $unit
stop_broker

# A wrong password.
install -m600 -o mosquitto /dev/null /tmp/passwords
mosquitto_passwd -b /tmp/passwords spotter right
printf 'listener 1883 127.0.0.1\npassword_file /tmp/passwords\n' > /tmp/mosquitto.conf
mosquitto -c /tmp/mosquitto.conf > /tmp/mosquitto.log 2>&1 &
broker=$!
printf '%surl = "mqtt://127.0.0.1"\nuser = "spotter"\npassword = "wrong"\n' "$rules" | configure
start_spotter
until_true 20 "the refusal is said" refused
say "$(journal | grep '"broker"' | tail -1)"
journal -p err | grep -qi 'password\|credential\|authori' || fail "the message does not say what was refused"
sleep 20
n=$(grep -c 'not authorised' /tmp/mosquitto.log)
figure refused_attempts_in_20_s "$n"
[ "$n" -le 8 ] || fail "$n attempts in 20 s: it does not back off"
mosquitto_passwd -b /tmp/passwords spotter wrong
kill -HUP $broker
mended=$(now)
until_true 70 "the password is right now" up
figure password_over_s "$(since "$mended")"
still_the_same
systemctl stop $unit
kill $broker
wait $broker || :

# A certificate that is valid from today, on a board that thinks it is the day before.
today=$(date +%s)
date -s "@$((today - 2 * 86400))" > /dev/null
printf 'listener 8883 127.0.0.1\nallow_anonymous true\ncafile /share/tls/ca.pem\ncertfile /share/tls/broker.pem\nkeyfile /share/tls/broker.key\n' \
    > /tmp/mosquitto.conf
mosquitto -c /tmp/mosquitto.conf > /tmp/mosquitto.log 2>&1 &
broker=$!
cp /share/tls/ca.pem /etc/spotter/ca.pem
printf '%surl = "mqtts://localhost"\nca = "/etc/spotter/ca.pem"\n' "$rules" | configure
start_spotter
until_true 30 "the certificate is said to be at fault" said 'ertificate'
say "$(journal | grep -i certificate | head -1)"
journal | grep -qi 'not valid yet\|not yet valid' || fail "the message does not say that the certificate is not valid yet"
down || fail "the action claims to be well"
date -s "@$((today + 60))" > /dev/null
mended=$(now)
until_true 70 "the clock is right now" up
figure certificate_over_s "$(since "$mended")"
still_the_same
systemctl stop $unit
kill $broker
