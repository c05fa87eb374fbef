#!/usr/bin/env python3
"""Which `fit` sees most: top-1 of the shipped model on photos pasted into 1280x720 scenes, by crop, pad and stretch.

    pip install -r tests/reference/requirements.txt
    tests/reference/fit_experiment.py --model models/vgg16-gap-caltech101.onnx --labels LABELS.txt \\
        --photos tests/photos       # or a folder with more of them, and --each 3

The model's preprocessing: shorter side 256, centre crop 224, BGR, minus the Keras means. Each photo is pasted
at five heights, in the middle and at a random place, on one of three backgrounds: a blurred other photo, another
photo as it is, and noise. Seeded: the same table each time.
"""

import argparse
from pathlib import Path

import numpy as np
import onnxruntime
from PIL import Image, ImageFilter

import pillow_vectors

SCENE = (1280, 720)
HEIGHTS = (0.35, 0.5, 0.7, 0.85, 1.0)
MODEL_INPUT = pillow_vectors.TORCHVISION  # 256, then 224; only the order and the means are Keras's
MEAN_GREY = (124, 117, 104)
FITS = ("crop", "pad", "pad, mean colour", "stretch")


def background(kind, other, rng):
    if kind == "noise":
        return Image.fromarray(rng.integers(0, 256, (SCENE[1], SCENE[0], 3), dtype=np.uint8)).filter(ImageFilter.GaussianBlur(2))
    scene = other.resize(SCENE, Image.Resampling.BICUBIC)
    return scene.filter(ImageFilter.GaussianBlur(24)) if kind == "blurred photo" else scene


def paste(photo, scene, height, centred, rng):
    h = round(SCENE[1] * height)
    w = min(SCENE[0], round(photo.width * h / photo.height))
    photo = photo.resize((w, h), Image.Resampling.BICUBIC)
    free = SCENE[0] - w, SCENE[1] - h
    at = (free[0] // 2, free[1] // 2) if centred else (int(rng.integers(free[0] + 1)), int(rng.integers(free[1] + 1)))
    scene = scene.copy()
    scene.paste(photo, at)
    return scene


def see(image, fit):
    if fit == "pad, mean colour":
        pillow_vectors.GREY = MEAN_GREY
        picture = pillow_vectors.see(image, MODEL_INPUT, fit="pad")
        pillow_vectors.GREY = (128, 128, 128)
        return picture
    return pillow_vectors.see(image, MODEL_INPUT, fit=fit)


class Model:
    def __init__(self, path, threads):
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        self.session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        self.input = self.session.get_inputs()[0].name

    def top1(self, picture):
        tensor = pillow_vectors.values(picture, "keras-caffe")[None].astype(np.float32)
        return int(np.argmax(self.session.run(None, {self.input: tensor})[0]))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--labels", type=Path, required=True)
    parser.add_argument("--photos", type=Path, required=True, help="a folder of <label>/*.jpg")
    parser.add_argument("--each", type=int, default=2, help="photos of each label, at most")
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    rng = np.random.default_rng(20261124)
    labels = arguments.labels.read_text().split("\n")
    model = Model(arguments.model, arguments.threads)
    photos = [
        (labels.index(folder.name), Image.open(path).convert("RGB"))
        for folder in sorted(arguments.photos.iterdir())
        if folder.is_dir()
        for path in sorted(folder.glob("*.jpg"))[: arguments.each]
    ]
    rows = {}

    def count(row, image, wanted):
        for fit in FITS:
            right, n = rows.setdefault(row, {}).get(fit, (0, 0))
            rows[row][fit] = (right + (model.top1(see(image, fit)) == wanted), n + 1)

    kinds = ("blurred photo", "photo", "noise")
    for i, (wanted, photo) in enumerate(photos):
        count("the photo alone", photo, wanted)
        wide = photo.resize(SCENE, Image.Resampling.BICUBIC) if photo.width > photo.height else None
        if wide is not None:
            count("a wide photo filling 16:9 (stretched to it)", wide, wanted)
        # The background's photo is of another class.
        other = photos[(i + len(photos) // 2) % len(photos)][1]
        for j, height in enumerate(HEIGHTS):
            scene = background(kinds[(i + j) % 3], other, rng)
            for centred in (True, False):
                place = "centred" if centred else "anywhere"
                count(f"scene, {height:.0%} of the height, {place}", paste(photo, scene, height, centred, rng), wanted)
    print(f"{len(photos)} photos; top-1 in %\n{'':46}" + "".join(f"{fit:>18}" for fit in FITS) + f"{'n':>6}")
    for row in sorted(rows, key=lambda r: (r.startswith("scene"), r)):
        cells = rows[row]
        print(f"{row:46}" + "".join(f"{100 * right / n:18.1f}" for right, n in cells.values()) + f"{cells['crop'][1]:6}")
    for place in ("centred", "anywhere", ""):
        chosen = [cells for row, cells in rows.items() if row.startswith("scene") and row.endswith(place)]
        totals = [100 * sum(c[f][0] for c in chosen) / sum(c[f][1] for c in chosen) for f in FITS]
        print(f"{'scenes, ' + (place or 'all'):46}" + "".join(f"{t:18.1f}" for t in totals) + f"{sum(c['crop'][1] for c in chosen):6}")


if __name__ == "__main__":
    main()
