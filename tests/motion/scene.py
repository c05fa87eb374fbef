"""What comes into the recorded scene: photos that the model knows, on the lawn of OpenCV's vtest.avi (a fixed camera, pedestrians).

    scene.py filter PHOTOS   the arguments of ffmpeg that lay the photos over the recording, one a line
    scene.py truth           JSON: for each photo its rule, and the milliseconds in which it is in the picture

Each photo slides in from the left within a second, stays, and slides out again.
"""
import json
import sys

# Rule (the photo's folder), photo, when it comes (seconds), how long it stays, height in pixels, where it comes to rest (left, top).
OBJECTS = [
    ("stop_sign", "image_0006.jpg", 6.0, 2.0, 200, (30, 330)),
    ("dalmatian", "image_0001.jpg", 30.0, 2.0, 200, (30, 330)),
    ("soccer_ball", "image_0002.jpg", 41.0, 2.0, 200, (50, 330)),
    ("umbrella", "image_0011.jpg", 85.0, 2.0, 200, (30, 320)),
    ("sunflower", "image_0018.jpg", 119.0, 2.0, 200, (40, 330)),
]
SLIDE = 1.0


def arguments(photos):
    lines = []
    for label, photo, *_ in OBJECTS:
        lines += ["-loop", "1", "-framerate", "10", "-i", f"{photos}/{label}/{photo}"]
    graph, last = [], "[0:v]"
    for number, (_, _, begin, stay, height, (left, top)) in enumerate(OBJECTS, 1):
        rest, leave, end = begin + SLIDE, begin + SLIDE + stay, begin + 2 * SLIDE + stay
        come = f"-w+({left}+w)*(t-{begin})/{SLIDE}"
        go = f"{left}-({left}+w)*(t-{leave})/{SLIDE}"
        x = f"if(lt(t,{rest}),{come},if(lt(t,{leave}),{left},{go}))"
        graph.append(f"[{number}:v]scale=-2:{height}[p{number}]")
        graph.append(f"{last}[p{number}]overlay=x='{x}':y={top}:shortest=1:enable='between(t,{begin},{end})'[v{number}]")
        last = f"[v{number}]"
    return lines + ["-filter_complex", ";".join(graph), "-map", last]


def truth():
    return [
        {"rule": label, "from": round(begin * 1000), "to": round((begin + 2 * SLIDE + stay) * 1000)}
        for label, _, begin, stay, _, _ in OBJECTS
    ]


if __name__ == "__main__":
    if sys.argv[1:2] == ["filter"]:
        print("\n".join(arguments(sys.argv[2])))
    elif sys.argv[1:] == ["truth"]:
        print(json.dumps(truth()))
    else:
        sys.exit(__doc__)
