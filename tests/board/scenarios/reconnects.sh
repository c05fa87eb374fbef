#!/bin/sh
# The camera is disconnected hundreds of times: descriptors and threads as before, memory grown by at most 1 MB.
. /share/lib.sh
begin
configure << 'E2'
[[rule]]
name = "red"
classes = ["red"]
E2
start_spotter
opens='spotter_camera_opens_total{camera="vivid"}'

fds() { ls "/proc/$pid/fd" | wc -l; }
threads() { awk '/^Threads/ { print $2 }' "/proc/$pid/status"; }
rss_kb() { awk '/^VmRSS/ { print $2 }' "/proc/$pid/status"; }
# Each time: frames come, then the camera is gone.
reconnect() { # TIMES
    for _ in $(seq "$1"); do
        until_true 20 "frames come" frames_come "$(metric "$captured")"
        camera disconnect=1
    done
    until_true 20 "frames come" frames_come "$(metric "$captured")"
}

reconnect 20 # what grows in the first ones is the warm-up
before_fds=$(fds) before_threads=$(threads) before_rss=$(rss_kb) before_opens=$(metric "$opens")
n=$(count 500 40)
started=$(now)
reconnect "$n"
opened=$(($(metric "$opens") - before_opens))
figure reconnects "$opened"
figure seconds "$(since "$started")"
figure rss_growth_kb "$(($(rss_kb) - before_rss))"
figure fds "$before_fds->$(fds)"
figure threads "$before_threads->$(threads)"
[ "$opened" -ge "$n" ] || fail "only $opened reconnects of $n"
[ "$(fds)" = "$before_fds" ] || fail "descriptors: $before_fds before, $(fds) after: $(ls -l "/proc/$pid/fd")"
[ "$(threads)" = "$before_threads" ] || fail "threads: $before_threads before, $(threads) after"
[ $(($(rss_kb) - before_rss)) -le 1024 ] || fail "memory grew by $(($(rss_kb) - before_rss)) kB"
still_the_same
