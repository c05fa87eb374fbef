#!/usr/bin/env python3
"""Whether onnxruntime gives a model's photos the same top class as Spotter.

    spotter classify --format json --top 100000 --model MODEL.onnx DIR/*/*.jpg > scores.json
    python3 tests/reference/onnxruntime_agreement.py MODEL.onnx scores.json

For models of the shipped trunk's preprocessing (onnxruntime_reference.py: shorter side to 256, crop 224, BGR less the mean).
`session.x64quantprecision`: on an x86-64 CPU without VNNI onnxruntime otherwise multiplies u8 by i8 with an instruction that saturates
its 16-bit sums, and its answers are then not those of its own reference arithmetic. Exit code 1 when a top class differs.
"""
import json
import pathlib
import sys

import numpy as np
import onnxruntime
from PIL import Image

MEAN = np.array([103.939, 116.779, 123.68], np.float32)


def picture(path):
    image = Image.open(path).convert("RGB")
    width, height = image.size
    width, height = (256, int(256 * height / width)) if width <= height else (int(256 * width / height), 256)
    image = image.resize((width, height), Image.BILINEAR)
    left, top = round((width - 224) / 2), round((height - 224) / 2)
    pixels = np.asarray(image.crop((left, top, left + 224, top + 224)), np.float32)[:, :, ::-1] - MEAN
    return np.ascontiguousarray(pixels.transpose(2, 0, 1)[None])


def main():
    options = onnxruntime.SessionOptions()
    options.add_session_config_entry("session.x64quantprecision", "1")
    session = onnxruntime.InferenceSession(sys.argv[1], options, providers=["CPUExecutionProvider"])
    results = json.loads(pathlib.Path(sys.argv[2]).read_text())["results"]
    same, largest = 0, 0.0
    for result in results:
        scores = session.run(None, {session.get_inputs()[0].name: picture(result["image"])})[0][0]
        ours = np.zeros_like(scores)
        for entry in result["top"]:
            ours[entry["index"]] = entry["score"]
        same += int(scores.argmax() == ours.argmax())
        largest = max(largest, float(np.abs(scores - ours).max()))
    print(f"onnxruntime {onnxruntime.__version__}: {same} of {len(results)} with the same top class, scores within {largest:.3f}")
    sys.exit(same != len(results))


main()
