"""What the motion gate saves and what it costs: two replays of one recording, with and without it.

    report.py ALWAYS.json GATED.json TRUTH.json     the output of spotter replay --format json, and of scene.py truth

Exits by the bars: at most 40 % of the frames classified, no event of the whole recording lost or later than one frame.
"""
import json
import sys
from datetime import datetime

FRAME = 100  # milliseconds
MOST = 0.40


def milliseconds(time):
    return round(datetime.fromisoformat(time.replace("Z", "+00:00")).timestamp() * 1000)


def events(replay, begin):
    return [(event["rule"], milliseconds(event["time"]) - begin) for event in replay["events"] if event["state"] == "on"]


def match(wanted, found):
    """For each wanted event the delay in frames of the nearest of the same rule within two seconds; None if there is none."""
    delays = []
    for rule, time in wanted:
        near = [other - time for name, other in found if name == rule and abs(other - time) <= 2000]
        delays.append(min(near, key=abs) / FRAME if near else None)
    return delays


def judged(found, truth):
    """Of the things in the recording how many were told, and how many events there were of nothing."""
    inside = lambda rule, time, thing: thing["rule"] == rule and thing["from"] <= time <= thing["to"] + 1000
    told = sum(any(inside(rule, time, thing) for rule, time in found) for thing in truth)
    false = sum(not any(inside(rule, time, thing) for thing in truth) for rule, time in found)
    return told, false


def main():
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    always, gated, truth = (json.load(open(path)) for path in sys.argv[1:])
    begin = 1_700_000_000_000
    hours = always["count"] * FRAME / 3_600_000
    rows = []
    for name, replay in (("every frame", always), ("with the gate", gated)):
        found = events(replay, begin)
        told, false = judged(found, truth)
        share = 1 - replay["skipped"] / replay["count"]
        rows.append((name, f"{share:.1%}", f"{told} of {len(truth)}", len(found), false, f"{false / hours:.1f}"))
    print(f"{always['count']} frames, {hours * 3600:.0f} s; {len(truth)} things come and go among pedestrians")
    heads = ("", "classified", "things told", "events", "false", "false an hour")
    for row in (heads, *rows):
        print("".join(f"{cell:>15}" for cell in row))
    delays = match(events(always, begin), events(gated, begin))
    lost = sum(delay is None for delay in delays)
    late = max((delay for delay in delays if delay is not None), default=0)
    print(f"of the {len(delays)} events of every frame, {lost} are lost with the gate; the latest comes {late:.0f} frames later")
    share = 1 - gated["skipped"] / gated["count"]
    good = delays and not lost and late <= 1 and share <= MOST
    print(f"{'good' if good else 'BAD'}: the bars are {MOST:.0%} classified, none lost, none later than one frame")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
