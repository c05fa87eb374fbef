#!/bin/sh
# The package's life: installed, it runs as shipped and is enabled, as a user of its own; an upgrade keeps the configuration and what the
# administrator chose; removed and purged, nothing of it is left.
. /share/lib.sh

installed() { dpkg-query -W -f '${db:Status-Status}' spotter 2> /dev/null | grep -qx "$1"; }
! installed installed || dpkg --purge spotter
# An emulated core loads VGG16 and runs its self-test some hundred times slower than a real one.
drop_in emulation << 'E2'
[Service]
WatchdogSec=900
TimeoutStartSec=300
E2

started=$(now)
dpkg -i /share/spotter.deb || fail "dpkg -i"
figure install_s "$(since "$started")"
systemctl is-enabled --quiet $unit || fail "it is not enabled"
systemctl is-active --quiet $unit || fail "it does not run after the installation, on the default configuration"
pid=$(main_pid)
[ "$(ps -o user= -p "$pid")" = spotter ] || fail "it does not run as the user spotter"
[ "$(id -nG spotter | tr ' ' '\n' | sort | paste -sd' ')" = "gpio spotter video" ] || fail "its groups are: $(id -nG spotter)"
getent passwd spotter | grep -q nologin || fail "the user has a shell: $(getent passwd spotter)"
[ "$(stat -c %G:%a "$GPIO_CHIP")" = gpio:660 ] || fail "the GPIO chip is $(stat -c %G:%a "$GPIO_CHIP")"
spotter --version

# The administrator's configuration.
mkdir -p /usr/local/share/spotter
cp /share/models/pattern* /usr/local/share/spotter/
configure << 'E2'
[[rule]]
name = "red"
classes = ["red"]
E2
systemctl restart $unit || fail "it does not run on the scenario's configuration"
before=$(sha256sum $config)
pid=$(main_pid)
started=$(now)
dpkg -i /share/spotter-next.deb < /dev/null || fail "the upgrade"
figure upgrade_s "$(since "$started")"
[ "$(sha256sum $config)" = "$before" ] || fail "the upgrade changed the configuration"
systemctl is-active --quiet $unit || fail "it does not run after the upgrade"
[ "$(main_pid)" != "$pid" ] || fail "the old program still runs after the upgrade"

systemctl disable --quiet --now $unit
dpkg -i /share/spotter.deb < /dev/null || fail "the downgrade"
! systemctl is-enabled --quiet $unit || fail "a disabled service is enabled after an upgrade"
! systemctl is-active --quiet $unit || fail "a stopped service runs after an upgrade"
systemctl enable --quiet --now $unit || fail "it does not start"

files=$(dpkg -L spotter)
dpkg --remove spotter || fail "dpkg --remove"
! systemctl is-active --quiet $unit || fail "it runs after its removal"
! pgrep -x spotter || fail "a process is left"
[ -e $config ] || fail "the removal took the configuration"
[ ! -e /usr/bin/spotter ] || fail "the program is left"
touch /var/lib/spotter/left-over 2> /dev/null || :
dpkg --purge spotter || fail "dpkg --purge"
left=$(for file in $files; do if [ -f "$file" ]; then echo "$file"; fi; done)
[ -z "$left" ] || fail "files are left: $left"
for path in /etc/spotter /var/lib/spotter /usr/share/spotter /etc/systemd/system/multi-user.target.wants/$unit; do
    [ ! -e "$path" ] && [ ! -L "$path" ] || fail "$path is left"
done
! systemctl cat $unit > /dev/null 2>&1 || [ -d /etc/systemd/system/$unit.d ] || fail "systemd still knows the unit"
rm -rf /etc/systemd/system/$unit.d
