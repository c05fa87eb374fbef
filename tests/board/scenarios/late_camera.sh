#!/bin/sh
# A camera that is plugged in for the first time after the service has started. The unit's device rule names a group of devices that the
# kernel knows only once the module videodev is loaded, so the unit has to load it. Under the shipped unit's sandbox a
# small program stands in for the daemon, which shows the unit alone: it waits for the node and asks the camera's name.
. /share/lib.sh

begin
cat > /usr/local/bin/probe <<'PROBE'
#!/bin/sh
while [ ! -e /dev/video0 ]; do sleep 0.2; done
sleep 1 # the node is there before udev has given it to its group
exec v4l2-ctl -d /dev/video0 --info
PROBE
chmod 755 /usr/local/bin/probe
printf '[Service]\nType=exec\nWatchdogSec=0\nRestart=no\nExecStart=\nExecStart=/usr/local/bin/probe\n' | drop_in probe

rmmod vivid
for module in v4l2_dv_timings videobuf2_v4l2 videodev; do modprobe -q -r $module || :; done
! grep -q video4linux /proc/devices || fail "the kernel still knows video4linux: this would show nothing: $(lsmod | grep videodev)"
systemctl start $unit || fail "the unit does not start"
modprobe vivid
plugged=$(now)
ended() { ! systemctl is-active --quiet $unit; }
until_true 30 "the probe ends" ended
[ "$(systemctl show -P ExecMainStatus $unit)" = 0 ] || fail "the camera cannot be opened"
journalctl --no-pager -q -u $unit -o cat | grep 'Card type' || fail "the camera did not say its name"
figure opened_s "$(since "$plugged")"
