#!/usr/bin/env python3
"""What onnxruntime makes of the shipped model, layer by layer, for tests/model.rs.

    pip install -r tests/reference/requirements.txt onnx==1.* onnxruntime==1.32.*
    tests/reference/onnxruntime_vectors.py

For two photos: the 224x224 picture that the model sees (a PNG), the SHA-256 of each convolution's 8-bit output (after the
max-pool where one follows) as NHWC bytes, and the scores.
"""
import hashlib
import json
import pathlib

import numpy as np
import onnx
import onnxruntime
from PIL import Image

ROOT = pathlib.Path(__file__).resolve().parents[2]
OUT = ROOT / "tests/reference/onnxruntime"
PHOTOS = ["wild_cat/image_0003.jpg", "helicopter/image_0006.jpg"]
MEAN = np.array([103.939, 116.779, 123.68], np.float32)


def picture(path):
    image = Image.open(path).convert("RGB")
    w, h = image.size
    short, long = min(w, h), max(w, h)
    size = (256, int(256 * long / short)) if w < h else (int(256 * long / short), 256)
    image = image.resize(size, Image.BILINEAR)
    left, top = round((size[0] - 224) / 2), round((size[1] - 224) / 2)
    return image.crop((left, top, left + 224, top + 224))


def main():
    model = onnx.load(ROOT / "models/vgg16-gap-caltech101.onnx")
    pools = {n.input[0]: n.output[0] for n in model.graph.node if n.op_type == "MaxPool"}
    layers = {n.name: pools.get(n.output[0], n.output[0]) for n in model.graph.node if n.op_type == "QLinearConv"}
    for tensor in layers.values():
        model.graph.output.append(onnx.helper.make_tensor_value_info(tensor, onnx.TensorProto.UINT8, None))
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    reference = []
    for index, photo in enumerate(PHOTOS):
        view = picture(ROOT / "tests/photos" / photo)
        view.save(OUT / f"{index}.png", optimize=True)
        bgr = np.asarray(view, np.float32)[:, :, ::-1] - MEAN
        outputs = session.run(["logits", *layers.values()], {"input": bgr.transpose(2, 0, 1)[None].copy()})
        digest = lambda t: hashlib.sha256(np.ascontiguousarray(t[0].transpose(1, 2, 0)).tobytes()).hexdigest()
        reference.append({
            "photo": photo,
            "layers": [{"name": n, "sha256": digest(t)} for n, t in zip(layers, outputs[1:])],
            "scores": [float(s) for s in outputs[0][0]],
        })
    (OUT / "reference.json").write_text(json.dumps(reference, indent=1) + "\n")


main()
