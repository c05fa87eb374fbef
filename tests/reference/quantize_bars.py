#!/usr/bin/env python3
"""`spotter quantize` beside onnxruntime's static quantisation, on the same photos: time, memory, and what is left of the float model.

    python3 -m venv /tmp/reference && /tmp/reference/bin/pip install -r tests/reference/requirements-onnx.txt
    /tmp/reference/bin/python tests/reference/quantize_bars.py target/release/spotter FLOAT.onnx --calibration DIR --test DIR

Each quantises FLOAT.onnx (its manifest beside it) by the same 100 photos of the first folder, in turns; onnxruntime with its defaults for
a CPU (QOperator form, `u8` activations, int8 weights by channel, min-max) and its own pre-processing before. All photos of the second
folder then go through the float model and both int8 models in onnxruntime: mean cosine of the outputs, and the same first class.
Where the outputs are classes, Spotter runs its own model on them too, and onnxruntime must give the same first class on every photo
(photos decoded by Pillow and by Spotter differ by a grey level here and there, so a tie may break; such a photo is named). Exit code 1
where a bar is missed. `--only-accuracy` leaves the times out; `--methods` compares Spotter's ways of choosing a range instead.
"""
import argparse
import json
import os
import pathlib
import resource
import statistics
import subprocess
import sys
import time
import tomllib

import numpy as np
import onnxruntime
from PIL import Image

TORCHVISION = {"resize": 256, "crop": 224, "order": "rgb", "mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225], "scale": 1 / 255}
NAMED = {
    "torchvision": TORCHVISION,
    "keras-caffe": {"resize": "stretch", "order": "bgr", "mean": [103.939, 116.779, 123.68], "std": [1, 1, 1], "scale": 1},
    "keras-tf": {"resize": "stretch", "order": "rgb", "mean": [127.5] * 3, "std": [127.5] * 3, "scale": 1},
}


class Preprocess:
    """A manifest's preprocessing, with Pillow."""

    def __init__(self, model):
        manifest = tomllib.loads(model.with_suffix(".toml").read_text())
        self.width, self.height = manifest["input"]["size"]
        spec = manifest["input"]["preprocess"]
        self.spec = NAMED[spec] if isinstance(spec, str) else spec
        self.features = manifest["output"]["kind"] == "features"

    def __call__(self, path):
        image = Image.open(path).convert("RGB")
        if self.spec["resize"] == "stretch":
            image = image.resize((self.width, self.height), Image.BILINEAR)
        else:
            (width, height), side = image.size, self.spec["resize"]
            size = (side, int(side * height / width)) if width <= height else (int(side * width / height), side)
            image = image.resize(size, Image.BILINEAR)
            left, top = round((size[0] - self.width) / 2), round((size[1] - self.height) / 2)
            image = image.crop((left, top, left + self.width, top + self.height))
        pixels = np.asarray(image, np.float32)
        pixels = pixels[:, :, ::-1] if self.spec["order"] == "bgr" else pixels
        pixels = (pixels * np.float32(self.spec.get("scale", 1))) - np.array(self.spec["mean"], np.float32)
        return np.ascontiguousarray((pixels / np.array(self.spec["std"], np.float32)).transpose(2, 0, 1)[None])


def photos_of(folder):
    """In the order in which Spotter lists them."""
    return sorted(p for p in folder.rglob("*") if p.suffix.lower() in (".jpg", ".jpeg", ".png"))


def session(path):
    options = onnxruntime.SessionOptions()
    # without VNNI onnxruntime otherwise sums two products of bytes in 16 bits, which overflow
    options.add_session_config_entry("session.x64quantprecision", "1")
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def quantize_with_onnxruntime(model, output, photos):
    """In a process of its own, for its memory. Prints seconds and peak bytes."""
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(CalibrationDataReader):
        def __init__(self):
            self.preprocess, self.photos = Preprocess(model), iter(photos)
            self.name = onnxruntime.InferenceSession(str(model), providers=["CPUExecutionProvider"]).get_inputs()[0].name

        def get_next(self):
            photo = next(self.photos, None)
            return None if photo is None else {self.name: self.preprocess(photo)}

    start, prepared = time.monotonic(), output.with_suffix(".prepared.onnx")
    quant_pre_process(str(model), str(prepared))
    quantize_static(
        str(prepared), str(output), Reader(), quant_format=QuantFormat.QOperator, per_channel=True,
        activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8,
    )
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps({"seconds": time.monotonic() - start, "peak_rss_bytes": peak}))


def last_json(text):
    return json.loads(text[text.index("{"):] if text.lstrip().startswith("{") else text.splitlines()[-1])


def command_of(arguments, output, photos, options):
    return [arguments.spotter, "quantize", arguments.model, "--calibration", arguments.calibration, "--output", output,
            "--photos", str(photos), "--held-back", "0", "--format", "json", *options]


def methods(arguments, photos, test):
    """Each way of choosing a range, with biases corrected and not: what is left of the float model."""
    choices = [(m, o) for m in ("least-squares", "percentile", "min-max") for o in ([], ["--no-bias-correction"])]
    made = [arguments.work / f"{method}{len(options)}.onnx" for method, options in choices]
    for (method, options), path in zip(choices, made):
        command = command_of(arguments, path, len(photos), ["--method", method, *options])
        subprocess.run([str(c) for c in command], check=True, stdout=subprocess.DEVNULL)
    cosines, agreement, features = compare(arguments, made, test)
    for (method, options), cosine, same in zip(choices, cosines, agreement):
        print(f"{method:14}{'biases as they are' if options else 'biases corrected':20}{cosine:10.5f}{'' if features else f'{same:6} of {len(test)}'}")


def measure(arguments, work, photos):
    """Each in turns; the times, and the peaks of memory."""
    ours, theirs = work / "spotter-int8.onnx", work / "onnxruntime-int8.onnx"
    listed = work / "calibration.json"
    listed.write_text(json.dumps([str(p) for p in photos]))
    spotter = command_of(arguments, ours, len(photos), arguments.option)
    other = [sys.executable, __file__, arguments.spotter, arguments.model, "--calibration", arguments.calibration, "--test",
             arguments.test, "--child", listed, theirs]
    found = {"spotter": [], "onnxruntime": []}
    for _ in range(1 if arguments.only_accuracy else arguments.rounds):
        for name, command in (("spotter", spotter), ("onnxruntime", other)):
            start = time.monotonic()
            out = subprocess.run([str(c) for c in command], check=True, stdout=subprocess.PIPE, text=True).stdout
            result = last_json(out)
            result["wall"] = time.monotonic() - start
            found[name].append(result)
    return ours, theirs, found


def spotter_classes(arguments, model, photos):
    """The first class, by Spotter itself."""
    command = [arguments.spotter, "classify", "--model", model, "--top", "2", "--format", "json", *photos]
    out = subprocess.run([str(c) for c in command], check=True, stdout=subprocess.PIPE, text=True).stdout
    return [[entry["index"] for entry in result["top"]] for result in json.loads(out)["results"]]


def compare(arguments, made, photos):
    """Float against each int8 model, in onnxruntime: mean cosine, photos of the same first class; and whether the outputs are features."""
    preprocess = Preprocess(arguments.model)
    sessions = [session(path) for path in (arguments.model, *made)]
    name = sessions[0].get_inputs()[0].name
    cosine = lambda a, b: float(a @ b / np.sqrt((a @ a) * (b @ b)))
    cosines, agreement = np.zeros(len(made)), [0] * len(made)
    for photo in photos:
        float_output, *outputs = [s.run(None, {name: preprocess(photo)})[0].ravel() for s in sessions]
        cosines += [cosine(float_output, o) / len(photos) for o in outputs]
        agreement = [a + int(float_output.argmax() == o.argmax()) for a, o in zip(agreement, outputs)]
    return cosines, agreement, preprocess.features


def others(arguments, model, photos):
    """Photos in which onnxruntime sees another first class than Spotter in Spotter's model."""
    preprocess, own = Preprocess(arguments.model), session(model)
    name = own.get_inputs()[0].name
    classes = spotter_classes(arguments, model, photos)
    return [str(p) for p, c in zip(photos, classes) if c[0] != own.run(None, {name: preprocess(p)})[0].argmax()]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("spotter", type=pathlib.Path)
    parser.add_argument("model", type=pathlib.Path)
    parser.add_argument("--calibration", type=pathlib.Path, required=True, metavar="DIR")
    parser.add_argument("--test", type=pathlib.Path, required=True, metavar="DIR")
    parser.add_argument("--photos", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only-accuracy", action="store_true")
    parser.add_argument("--methods", action="store_true")
    parser.add_argument("--option", action="append", default=[], help="a further argument of `spotter quantize`, as --option=--no-bias-correction")
    parser.add_argument("--work", type=pathlib.Path, default=pathlib.Path("/tmp/spotter-quantize-bars"))
    parser.add_argument("--child", nargs=2, type=pathlib.Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        listed, output = arguments.child
        return quantize_with_onnxruntime(arguments.model, output, [pathlib.Path(p) for p in json.loads(listed.read_text())])
    arguments.work.mkdir(parents=True, exist_ok=True)
    found = photos_of(arguments.calibration)
    count = min(arguments.photos, len(found))
    calibration = [found[i * len(found) // count] for i in range(count)]
    if arguments.methods:
        return methods(arguments, calibration, photos_of(arguments.test))
    ours, theirs, times = measure(arguments, arguments.work, calibration)
    test = photos_of(arguments.test)
    cosines, agreement, features = compare(arguments, (ours, theirs), test)
    total, differing = len(test), [] if features else others(arguments, ours, test)
    size = os.path.getsize(arguments.model)
    print(f"{arguments.model.name}: {size / 1e6:.1f} MB in float; {count} photos calibrate, {total} are compared with float")
    print(f"{'':14}{'seconds':>10}{'memory/model':>14}{'MB':>8}{'cosine':>10}{'same class':>12}")
    for row, (name, path) in enumerate((("spotter", ours), ("onnxruntime", theirs))):
        seconds = statistics.median(r["wall"] for r in times[name])
        memory = max(r["peak_rss_bytes"] for r in times[name]) / size
        same = "-" if features else f"{100 * agreement[row] / total:.1f} %"
        print(f"{name:14}{seconds:10.1f}{memory:14.2f}{os.path.getsize(path) / 1e6:8.1f}{cosines[row]:10.5f}{same:>12}")
    ratio = statistics.median(a["wall"] / b["wall"] for a, b in zip(times["spotter"], times["onnxruntime"]))
    print(f"time: {ratio:.2f} of onnxruntime's, the median of {len(times['spotter'])} rounds in turns")
    if not features:
        print(f"onnxruntime gives Spotter's first class on {total - len(differing)} of {total} photos {' '.join(differing)}")
    missed = [] if arguments.only_accuracy else [("time above half", ratio > 0.5)]
    missed += [("memory above 2.5 models", max(r["peak_rss_bytes"] for r in times["spotter"]) > 2.5 * size)]
    missed += [("cosine below onnxruntime's", features and cosines[0] < cosines[1])]
    missed += [("agreement below onnxruntime's", not features and agreement[0] < agreement[1]), ("another first class", bool(differing))]
    missed = [name for name, is_missed in missed if is_missed]
    print("all bars are met" if not missed else f"missed: {', '.join(missed)}")
    sys.exit(bool(missed))


main()
