#!/usr/bin/env python3
"""A classifier of torchvision as ONNX with Spotter's manifest and labels beside it. On a desktop:

    python3 -m venv /tmp/export && /tmp/export/bin/pip install -r models/requirements-torchvision.txt
    /tmp/export/bin/python models/export_torchvision.py vgg16 --output vgg16.onnx

downloads the official weights from download.pytorch.org and writes vgg16.onnx (float), vgg16.toml and vgg16-labels.txt; then
`spotter quantize vgg16.onnx --calibration PHOTOS --output vgg16-int8.onnx`. Any name that torchvision.models.list_models() prints will do,
where the network takes one picture and gives one row of scores. `--weights none` takes random (seeded) weights and downloads nothing.
"""
import argparse
import hashlib
import json
import pathlib

import torch
import torchvision

OPERATOR_SET = 18
SEED = 20261124


def preprocessing(weights):
    """Size, manifest's preprocess and class names of the weights; torchvision's ImageNet convention where there are none."""
    if weights is None:
        return 224, "torchvision", None
    transform = weights.transforms()
    [crop], [resize] = transform.crop_size, transform.resize_size
    table = {
        "resize": resize, "crop": crop, "order": "rgb", "mean": list(transform.mean), "std": list(transform.std),
        "scale": 1 / 255, "filter": "bilinear",
    }
    if transform.interpolation != torchvision.transforms.InterpolationMode.BILINEAR:
        print(f"note: trained with {transform.interpolation.value} interpolation; Spotter resizes bilinearly")
    return crop, table, weights.meta.get("categories")


def toml(value):
    """The little TOML that a manifest needs."""
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{key} = {toml(item)}" for key, item in value.items()) + " }"
    return json.dumps(value, ensure_ascii=False)


def export(model, path, side):
    """Writes one self-contained file: input `input` [1, 3, side, side], output `scores`."""
    torch.onnx.export(
        model.eval(), (torch.zeros(1, 3, side, side),), str(path), input_names=["input"], output_names=["scores"],
        opset_version=OPERATOR_SET, external_data=False, dynamo=True,
    )


def write_manifest(path, side, preprocess, labels, origin, licence):
    """The manifest, and the labels where there are any."""
    lines = ["[input]", 'name = "input"', f"size = [{side}, {side}]", f"preprocess = {toml(preprocess)}", "", "[output]", 'kind = "logits"']
    if labels:
        names = path.with_name(f"{path.stem}-labels.txt")
        names.write_text("\n".join(unique(labels)) + "\n")
        lines.append(f"labels = {toml(names.name)}")
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    lines += ["", "[source]", f"licence = {toml(licence)}", f"origin = {toml(origin)}", f'sha256 = "{digest}"']
    path.with_suffix(".toml").write_text("\n".join(lines) + "\n")


def unique(labels):
    """ImageNet has two classes called "crane" and two "maillot": rules go by name, so the second is numbered."""
    seen = {}
    for label in labels:
        seen[label] = seen.get(label, 0) + 1
        yield label if seen[label] == 1 else f"{label} ({seen[label]})"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="a name of torchvision.models.list_models(), as vgg16, resnet50, mobilenet_v2")
    parser.add_argument("--output", type=pathlib.Path, required=True, metavar="FILE.onnx")
    parser.add_argument("--weights", default="DEFAULT", metavar="NAME", help="DEFAULT (the best), IMAGENET1K_V1, …, or none")
    arguments = parser.parse_args()
    if arguments.output.suffix != ".onnx":
        parser.error("--output must end with .onnx")
    try:
        choices = torchvision.models.get_model_weights(arguments.model)
    except ValueError as error:
        parser.error(f"{error}; torchvision {torchvision.__version__} has: {', '.join(torchvision.models.list_models(module=torchvision.models))}")
    if arguments.weights != "none" and arguments.weights not in ("DEFAULT", *(w.name for w in choices)):
        parser.error(f"--weights {arguments.weights}: there are {', '.join(w.name for w in choices)}, and none")
    weights = None if arguments.weights == "none" else choices[arguments.weights]
    torch.manual_seed(SEED)
    model = torchvision.models.get_model(arguments.model, weights=weights)
    side, preprocess, labels = preprocessing(weights)
    export(model, arguments.output, side)
    named = f"{arguments.model}, {weights.name if weights else f'random weights of seed {SEED}'}"
    licence = "torchvision's code: BSD-3-Clause; its weights: see https://pytorch.org/vision/stable/models.html, trained on ImageNet (non-commercial research)"
    write_manifest(arguments.output, side, preprocess, labels, f"torchvision {torchvision.__version__}: {named}", licence if weights else "none needed")
    print(f"{arguments.output}: {arguments.output.stat().st_size / 1e6:.1f} MB, {side}x{side}, {named}")


if __name__ == "__main__":
    main()
