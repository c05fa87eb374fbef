#!/usr/bin/env python3
"""Fits a model's softmax temperature on labelled photos, for `temperature` in its manifest.

    spotter classify --format json --top 1000 --model MODEL.onnx DIR/*/*.jpg > scores.json
    models/fit_temperature.py scores.json

The folder of a photo is its label. The temperature is the one that minimises the mean negative log-likelihood of the
labels (Guo et al. 2017, "On Calibration of Modern Neural Networks"), found by golden-section search over its logarithm.
Standard library only.
"""
import json
import math
import pathlib
import sys


def nll(photos, temperature):
    total = 0.0
    for label, scores in photos:
        top = max(scores.values())
        total += math.log(sum(math.exp((s - top) / temperature) for s in scores.values())) - (scores[label] - top) / temperature
    return total / len(photos)


def fit(photos):
    low, high, ratio = math.log(0.01), math.log(100), (math.sqrt(5) - 1) / 2
    while high - low > 1e-5:
        a, b = high - ratio * (high - low), low + ratio * (high - low)
        if nll(photos, math.exp(a)) < nll(photos, math.exp(b)):
            high = b
        else:
            low = a
    return math.exp((low + high) / 2)


def main():
    results = json.loads(pathlib.Path(sys.argv[1]).read_text())["results"]
    photos = []
    for result in results:
        scores = {c["label"]: c["score"] for c in result["top"]}
        photos.append((pathlib.Path(result["image"]).parent.name, scores))
    temperature = fit(photos)
    right = sum(max(s, key=s.get) == label for label, s in photos)
    print(f"{len(photos)} photos, top-1 {right / len(photos):.4f}, nll {nll(photos, 1):.4f} at 1, "
          f"{nll(photos, temperature):.4f} at temperature {temperature:.3f}")


main()
