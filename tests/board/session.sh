#!/bin/sh
# In the guest: runs scenarios one after another, and leaves a verdict, figures and a log of each under /share/results.
#
#   session.sh SCENARIO...
for name; do
    results=/share/results/$name
    mkdir -p "$results"
    read -r start _ < /proc/uptime
    status=0
    # A group of its own: whatever a scenario leaves running ends with it.
    figures=$results/figures setsid sh "/share/scenarios/$name.sh" > "$results/log" 2>&1 &
    group=$!
    wait $group || status=$?
    kill -KILL -$group 2> /dev/null
    read -r end _ < /proc/uptime
    if [ $status = 0 ]; then verdict=passed; else verdict=FAILED; fi
    seconds=$(awk -v a="$start" -v b="$end" 'BEGIN { printf "%d", b - a }')
    echo "$verdict $seconds" > "$results/verdict"
    echo "---- $name: $verdict in $seconds s"
    [ $status = 0 ] || cat "$results/log"
done
