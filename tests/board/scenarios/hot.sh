#!/bin/sh
# The processor gets hot, by a simulated sysfs: less is done before the point at which the board slows itself down, and as much as before once
# it is cool again.
. /share/lib.sh
begin
sys=/usr/local/share/spotter/sys
mkdir -p $sys/class/thermal/thermal_zone0
temperature() { echo "$1"000 > $sys/class/thermal/thermal_zone0/temp; }
temperature 50
configure << E2
[device.thermal]
limit = 80
sysfs = "$sys"

[[rule]]
name = "red"
classes = ["red"]
E2
start_spotter
until_true 20 "the camera streams" frames_come 5
step_is() { metric_is spotter_thermal_step "$1"; }
rested() { metric 'spotter_frames_skipped_total{camera="vivid",cause="heat"}'; }
step_is 0 || fail "it is cool, and the step is $(metric spotter_thermal_step)"
[ "$(rested)" = 0 ] || fail "it is cool, and frames are skipped"
for expected in "69 1" "73 2" "77 3"; do
    temperature "${expected% *}"
    heated=$(now)
    until_true 15 "${expected% *} degrees: step ${expected#* }" step_is "${expected#* }"
    figure "step_${expected#* }_s" "$(since "$heated")"
done
before=$(metric "$classified") from=$(now)
sleep 5
figure frames_per_s_hot "$(awk -v n=$(($(metric "$classified") - before)) -v t="$(since "$from")" 'BEGIN { printf "%.1f", n / t }')"
figure frames_skipped "$(rested)"
[ "$(rested)" -gt 0 ] || fail "no frame is skipped at 77 degrees"
temperature 50
cooled=$(now)
until_true 30 "cool again: step 0" step_is 0
figure recovered_s "$(since "$cooled")"
skipped=$(rested) before=$(metric "$classified") from=$(now)
sleep 5
figure frames_per_s_cool "$(awk -v n=$(($(metric "$classified") - before)) -v t="$(since "$from")" 'BEGIN { printf "%.1f", n / t }')"
[ "$(rested)" -le $((skipped + 1)) ] || fail "frames are skipped although it is cool"
still_the_same
