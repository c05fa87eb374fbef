#!/bin/sh
# A camera that sees nothing to act on, a broker, a snapshot action, the page: nothing is written to the card.
. /share/lib.sh
begin
drop_in accounting << 'E2'
[Service]
IOAccounting=yes
E2
configure << 'E2'
[[rule]]
name = "red"
classes = ["red"]
armed_by = "mqtt"
actions = ["broker", "journal", "album"]

[action.broker]
type = "mqtt"
url = "mqtt://127.0.0.1"

[action.journal]
type = "log"

[action.album]
type = "snapshot"
folder = "/var/lib/spotter/snapshots"
E2
start_broker
start_spotter
until_true 20 "the camera is online" camera_is online
cgroup=/sys/fs/cgroup$(systemctl show -P ControlGroup $unit)
[ -e "$cgroup/io.stat" ] || fail "this kernel does not account for a unit's writes"
written() { awk '{ for (i = 2; i <= NF; i++) if (sub(/^wbytes=/, "", $i)) sum += $i } END { print sum + 0 }' "$cgroup/io.stat"; }
sleep 5
sync
before=$(written) frames=$(metric "$classified")
sleep "$(count 120 30)"
sync
figure seconds "$(count 120 30)"
figure frames "$(($(metric "$classified") - frames))"
figure bytes_written "$(($(written) - before))"
[ "$(written)" = "$before" ] || fail "it wrote $(($(written) - before)) bytes"
[ $(($(metric "$classified") - frames)) -gt 0 ] || fail "it did not even watch"
# The account is true: an event with a snapshot shows in it.
pattern red
pictured() { ls /var/lib/spotter/snapshots/*.jpg > /dev/null 2>&1; }
until_true 20 "a snapshot is written" pictured
sync
figure bytes_of_a_snapshot "$(($(written) - before))"
[ "$(written)" -gt "$before" ] || fail "the account does not see a snapshot's bytes: it shows nothing"
still_the_same
