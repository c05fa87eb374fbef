#!/usr/bin/env python3
"""What onnxruntime makes of the shipped VGG16, for tests/model_parity.rs.

    python3 -m venv /tmp/reference && /tmp/reference/bin/pip install -r tests/reference/requirements-onnx.txt
    /tmp/reference/bin/python tests/reference/onnxruntime_reference.py

Writes tests/reference/onnxruntime/: for each photo NAME.png, the exact 8-bit codes that enter the first convolution (a picture
whose three channels are the tensor's, so blue comes first), and reference.json: the scores, and for the output of each
of the 13 QLinearConv nodes, before any max-pool, its shape (height, width, channels), the FNV-1a digest of all its bytes
in NHWC order, and the first 16 channels of the pixel in the middle. And top1.json: for each
photo of tests/photos, from the JPEG file on, the label with the highest score. JPEG decoders differ among themselves, hence codes and
not photos.
"""
import json
import pathlib

import numpy as np
import onnx
import onnxruntime
from onnx import numpy_helper
from PIL import Image

ROOT = pathlib.Path(__file__).resolve().parents[2]
MODEL = ROOT / "models/vgg16-gap-caltech101.onnx"
OUT = ROOT / "tests/reference/onnxruntime"
PHOTOS = ["stop_sign/image_0006.jpg", "sunflower/image_0006.jpg"]
MEAN = np.array([103.939, 116.779, 123.68], np.float32)


def fnv1a(data):
    """FNV-1a with 64 bits (Fowler, Noll, Vo)."""
    digest = 0xCBF29CE484222325
    for byte in data:
        digest = (digest ^ byte) * 0x100000001B3 & 0xFFFFFFFFFFFFFFFF
    return f"{digest:016x}"


def picture(path):
    """The model's preprocessing: shorter side to 256, centre crop of 224, BGR."""
    image = Image.open(path).convert("RGB")
    width, height = image.size
    short, long = min(width, height), max(width, height)
    long = int(256 * long / short)
    width, height = (256, long) if width <= height else (long, 256)
    image = image.resize((width, height), Image.BILINEAR)
    left, top = round((width - 224) / 2), round((height - 224) / 2)
    pixels = np.asarray(image.crop((left, top, left + 224, top + 224)), np.float32)
    return pixels[:, :, ::-1] - MEAN


def traced(model):
    """The model with every QLinearConv's output as an output of the graph."""
    convolutions = [n for n in model.graph.node if n.op_type == "QLinearConv"]
    assert len(convolutions) == 13
    for node in convolutions:
        model.graph.output.append(onnx.helper.make_tensor_value_info(node.output[0], onnx.TensorProto.UINT8, None))
    return model, convolutions


def main():
    model, convolutions = traced(onnx.load(MODEL))
    constants = {i.name: numpy_helper.to_array(i) for i in model.graph.initializer}
    quantize = model.graph.node[0]
    assert quantize.op_type == "QuantizeLinear"
    scale, zero = np.float32(constants[quantize.input[1]]), int(constants[quantize.input[2]])
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    OUT.mkdir(exist_ok=True)
    photos = []
    for photo in PHOTOS:
        codes = np.clip(np.rint(picture(ROOT / "tests/photos" / photo) / scale) + zero, 0, 255).astype(np.uint8)
        name = photo.split("/")[0]
        Image.fromarray(codes, "RGB").save(OUT / f"{name}.png", optimize=True)
        # the floats that the graph's own QuantizeLinear turns into exactly these codes
        values = ((codes.astype(np.int32) - zero).astype(np.float32) * scale).transpose(2, 0, 1)[None]
        scores, *tensors = session.run(None, {"input": np.ascontiguousarray(values)})
        layers = []
        for node, tensor in zip(convolutions, tensors):
            tensor = np.ascontiguousarray(tensor[0].transpose(1, 2, 0))
            height, width, _ = tensor.shape
            layers.append({
                "name": node.name, "shape": list(tensor.shape), "fnv1a": fnv1a(tensor.tobytes()),
                "middle": tensor[height // 2, width // 2, :16].tolist(),
            })
        photos.append({"photo": photo, "codes": f"{name}.png", "scores": scores[0].tolist(), "convolutions": layers})
    plain = onnxruntime.InferenceSession(str(MODEL), providers=["CPUExecutionProvider"])
    labels = (ROOT / "models/caltech101-labels.txt").read_text().split("\n")
    top = {}
    for path in sorted((ROOT / "tests/photos").glob("*/*.jpg")):
        scores = plain.run(None, {"input": np.ascontiguousarray(picture(path).transpose(2, 0, 1)[None])})[0][0]
        top[f"{path.parent.name}/{path.name}"] = labels[int(scores.argmax())]
    (OUT / "top1.json").write_text(json.dumps(top, indent=1) + "\n")
    versions = {"onnxruntime": onnxruntime.__version__, "onnx": onnx.__version__, "numpy": np.__version__}
    text = json.dumps({"versions": versions, "photos": photos}, separators=(",", ":"))
    (OUT / "reference.json").write_text(text.replace('{"name"', '\n{"name"').replace('{"photo"', '\n\n{"photo"') + "\n")


main()
