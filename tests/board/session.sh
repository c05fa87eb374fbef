#!/bin/sh
# In the guest: runs scenarios one after another, and leaves a verdict, figures and a log of each under /share/results.
#
#   session.sh SCENARIO...
for name; do
    results=/share/results/$name
    mkdir -p "$results"
    read -r start _ < /proc/uptime
    status=0
    figures=$results/figures sh "/share/scenarios/$name.sh" > "$results/log" 2>&1 || status=$?
    read -r end _ < /proc/uptime
    if [ $status = 0 ]; then verdict=passed; else verdict=FAILED; fi
    echo "$verdict $(awk -v a="$start" -v b="$end" 'BEGIN { printf "%d", b - a }')" > "$results/verdict"
    [ $status = 0 ] || { echo "---- $name failed:"; cat "$results/log"; }
done
