#!/usr/bin/env python3
"""A classifier of keras.applications as ONNX with Spotter's manifest and labels beside it. On a desktop:

    python3 -m venv /tmp/export && /tmp/export/bin/pip install -r models/requirements-keras.txt
    /tmp/export/bin/python models/export_keras.py VGG16 --output vgg16-keras.onnx

downloads the official weights from storage.googleapis.com and writes the float model, its manifest and labels; then
`spotter quantize vgg16-keras.onnx --calibration PHOTOS --output vgg16-keras-int8.onnx`. `--weights none` takes random (seeded) weights and
downloads nothing. Keras runs on PyTorch here, with channels first, so that the ONNX has no transposition in front.
"""
import argparse
import hashlib
import os
import pathlib

os.environ["KERAS_BACKEND"] = "torch"
import keras  # noqa: E402
import torch  # noqa: E402

SEED = 20261124
OPERATOR_SET = 18
# keras.applications' own preprocess_input, by model
PREPROCESS = {
    "VGG16": "keras-caffe", "VGG19": "keras-caffe", "ResNet50": "keras-caffe", "ResNet101": "keras-caffe", "ResNet152": "keras-caffe",
    "ResNet50V2": "keras-tf", "ResNet101V2": "keras-tf", "ResNet152V2": "keras-tf", "MobileNet": "keras-tf", "MobileNetV2": "keras-tf",
    "InceptionV3": "keras-tf", "Xception": "keras-tf",
}
SIDES = {"InceptionV3": 299, "Xception": 299}


class Wrapped(torch.nn.Module):
    """A Keras model as a module that the exporter takes."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, picture):
        return self.model(picture, training=False)


def labels():
    """ImageNet's names in the order of the outputs, from Keras's own file; a name that comes twice is numbered."""
    from keras.src.applications.imagenet_utils import CLASS_INDEX_PATH
    import json
    index = json.load(open(keras.utils.get_file("imagenet_class_index.json", CLASS_INDEX_PATH, cache_subdir="models")))
    seen, names = {}, []
    for key in sorted(index, key=int):
        name = index[key][1]
        seen[name] = seen.get(name, 0) + 1
        names.append(name if seen[name] == 1 else f"{name} ({seen[name]})")
    return names


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", choices=sorted(PREPROCESS), metavar="MODEL", help=", ".join(sorted(PREPROCESS)))
    parser.add_argument("--output", type=pathlib.Path, required=True, metavar="FILE.onnx")
    parser.add_argument("--weights", default="imagenet", choices=["imagenet", "none"])
    arguments = parser.parse_args()
    path, side = arguments.output, SIDES.get(arguments.model, 224)
    if path.suffix != ".onnx":
        parser.error("--output must end with .onnx")
    keras.utils.set_random_seed(SEED)
    keras.config.set_image_data_format("channels_first")
    weights = None if arguments.weights == "none" else arguments.weights
    make = getattr(keras.applications, arguments.model)
    model = make(weights=weights, input_shape=(3, side, side), classifier_activation=None)
    torch.onnx.export(
        Wrapped(model).eval(), (torch.zeros(1, 3, side, side),), str(path), input_names=["input"], output_names=["scores"],
        opset_version=OPERATOR_SET, external_data=False, dynamo=True,
    )
    lines = ["[input]", 'name = "input"', f"size = [{side}, {side}]", f'preprocess = "{PREPROCESS[arguments.model]}"', "", "[output]", 'kind = "logits"']
    if weights:
        names = path.with_name(f"{path.stem}-labels.txt")
        names.write_text("\n".join(labels()) + "\n")
        lines.append(f'labels = "{names.name}"')
    named = f"{arguments.model}, {weights or f'random weights of seed {SEED}'}"
    licence = "Keras: Apache-2.0; VGG's weights: CC BY 4.0 (from memory); trained on ImageNet (non-commercial research)" if weights else "none needed"
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    lines += ["", "[source]", f'licence = "{licence}"', f'origin = "keras {keras.__version__}: {named}"', f'sha256 = "{digest}"']
    path.with_suffix(".toml").write_text("\n".join(lines) + "\n")
    print(f"{path}: {path.stat().st_size / 1e6:.1f} MB, {side}x{side}, {named}")


if __name__ == "__main__":
    main()
