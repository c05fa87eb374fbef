#!/bin/sh
# The drop-ins that are shipped beside the unit: each starts, opens what the unit alone refuses, and frames come from the camera. What the
# board lacks is said by a stand-in: no sensor on a ribbon, no registers of a Raspberry Pi (make test-pi has those), no decoder in hardware. Debian's kernel is built without DMA heaps.
. /share/lib.sh
begin

looked=/var/lib/spotter/looked
# What a camera's child meets in the sandbox that it inherits: a line for each node, for netlink and for memory that is written and run.
cat > /usr/local/bin/look-around << 'E2'
#!/bin/sh
: > "$STATE_DIRECTORY/looked.part"
try() { # NAME COMMAND...
    name=$1
    shift
    if "$@" > /dev/null 2>> "$STATE_DIRECTORY/refusals"; then verdict=open; else verdict=refused; fi
    echo "$verdict $name" >> "$STATE_DIRECTORY/looked.part"
}
can_open() { (: < "$1"); }
for node in /dev/media0 /dev/dri/renderD128 /dev/gpiomem; do try $node can_open $node; done
try media_controller media-ctl -d /dev/media0 -p
try netlink busybox ip link show lo
mv "$STATE_DIRECTORY/looked.part" "$STATE_DIRECTORY/looked"
E2
# The camera's frames as such a child delivers them.
cat > /usr/local/bin/camera-child << 'E2'
#!/bin/sh
/usr/local/bin/look-around
exec v4l2-ctl -d /dev/video0 --set-fmt-video=width=320,height=180,pixelformat=RGB3 --stream-mmap --stream-to=-
E2
# The same through GStreamer, whose conversion is compiled while it runs (Orc), as the ones on a Jetson are.
cat > /usr/local/bin/gstreamer-child << 'E2'
#!/bin/sh
/usr/local/bin/look-around
v4l2-ctl -d /dev/video0 --set-fmt-video=width=320,height=180,pixelformat=YUYV --stream-mmap --stream-to=- |
    gst-launch-1.0 -q fdsrc ! rawvideoparse format=yuy2 width=320 height=180 ! videoconvert ! video/x-raw,format=RGB ! fdsink
E2
chmod 755 /usr/local/bin/look-around /usr/local/bin/camera-child /usr/local/bin/gstreamer-child

# A render node, and one that only a Pi has. What is behind the stand-in does not matter: a node is allowed or forbidden by its numbers.
modprobe vgem
udevadm settle -t 20
if [ ! -e /dev/gpiomem ]; then
    mknod /dev/gpiomem c $(($(stat -c '0x%t' /dev/cpu_dma_latency))) $(($(stat -c '0x%T' /dev/cpu_dma_latency)))
fi
chgrp gpio /dev/gpiomem
chmod 660 /dev/gpiomem

# The model of most scenarios, and the camera behind a program: process_camera PROGRAM
process_camera() {
    sed '/^\[\[camera\]\]/,$d' /share/scenarios/base.toml > /tmp/process.toml
    cat >> /tmp/process.toml << E2
[[camera]]
name = "vivid"
process = ["/usr/local/bin/$1"]
format = "rgb24"
size = [320, 180]
fit = "stretch"

E2
}

# The shipped drop-ins of these names, and no others: shipped NAME...
shipped() {
    rm -rf /etc/systemd/system/$unit.d
    for name; do install -D -m644 "/share/systemd/spotter.service.d/$name.conf" "/etc/systemd/system/$unit.d/$name.conf"; done
    systemctl daemon-reload
}

# Starts, sees red and drives the line; then what the child met must be this: works OPEN... -- REFUSED...
works() {
    rm -f $looked
    pattern black
    start_spotter
    until_true 60 "frames come" frames_come 5
    pattern red
    until_true 30 "the line follows" line_is 17 1
    verdict=open
    for thing; do
        [ "$thing" != -- ] || { verdict=refused; continue; }
        grep -qx "$verdict $thing" $looked || fail "$thing should be $verdict: $(tr '\n' ';' < $looked) $(tail -5 /var/lib/spotter/refusals)"
    done
    still_the_same
    systemctl stop $unit
    line_is 17 0 || fail "the line is not safe after the stop"
}

exposure() {
    of=$(systemd-analyze security --no-pager $unit | sed -n 's/.*exposure level.*: \([0-9.]*\) .*/\1/p')
    figure "exposure_$1" "$of"
    awk -v e="$of" 'BEGIN { exit !(e != "" && e <= 1.6) }' || fail "the unit's exposure with $1 is above 1.6"
}

process_camera camera-child
red_lamp 17 | configure /tmp/process.toml
shipped
works -- /dev/media0 /dev/dri/renderD128 /dev/gpiomem media_controller netlink
exposure none

shipped rpicam
exposure rpicam
works /dev/media0 media_controller netlink -- /dev/dri/renderD128 /dev/gpiomem

shipped rppal
exposure rppal
works /dev/gpiomem -- /dev/media0 /dev/dri/renderD128 netlink

shipped ffmpeg
exposure ffmpeg
process_camera gstreamer-child
red_lamp 17 | configure /tmp/process.toml
works /dev/dri/renderD128 -- /dev/media0 /dev/gpiomem netlink
[ -n "$(find /var/cache/spotter -name 'registry*.bin')" ] || fail "GStreamer could not keep its list of plug-ins"

# All at once, as a board may need them, and the rppal backend on a board that is no Raspberry Pi: said, and the rest works.
shipped rpicam rppal ffmpeg
exposure all
process_camera camera-child
{
    red_lamp 17 | sed 's/"lamp"/"lamp", "register"/'
    printf '\n[action.register]\ntype = "gpio"\nbackend = "rppal"\nline = 27\n'
} | configure /tmp/process.toml
works /dev/media0 /dev/dri/renderD128 /dev/gpiomem media_controller netlink --
journal | grep 'BCM GPIO 27 failed: Unknown Raspberry Pi model' || fail "nobody said that rppal does not know this board"
