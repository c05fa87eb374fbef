#!/usr/bin/env python3
"""Makes pattern.onnx beside this file: the network of the board's scenarios, which tells vivid's test patterns apart by 110,000
multiplications where VGG16 has 15 billion, so that an emulated core keeps up with the camera. Needs numpy, onnx, onnxruntime and Pillow.

The first layer is random and stays so; the head is a logistic regression on its averages, on drawn pictures. Quantised by onnxruntime.
"""

import pathlib
import tempfile

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from PIL import Image

LABELS = ["bars", "black", "white", "red", "green", "blue"]
SIDE = 32
CHANNELS = 16
BARS = np.array(
    [(191, 191, 191), (191, 191, 0), (0, 191, 191), (0, 191, 0), (191, 0, 191), (191, 0, 0), (0, 0, 191), (0, 0, 0)]
)
PLAIN = {"black": (0, 0, 0), "white": (255, 255, 255), "red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 255)}


def draw(label, random):
    """One picture of 320x180, with the driver's text and moving box about where it draws them."""
    height, width = 180, 320
    if label == "bars":
        columns = (np.arange(width) + random.integers(width)) * 8 // width % 8
        bars = BARS * random.uniform(1.0, 255 / 191)
        picture = np.broadcast_to(bars[columns], (height, width, 3)).copy()
    else:
        picture = np.full((height, width, 3), PLAIN[label], float)
    for row in range(random.integers(4)):
        left, length = random.integers(4, 40), random.integers(20, 200)
        text = random.random((8, length)) < 0.3
        picture[16 * row + 16 : 16 * row + 24, left : left + length][text] = 255
    picture += random.normal(0, 3, picture.shape)
    return Image.fromarray(np.clip(picture, 0, 255).astype(np.uint8))


def pixels(picture):
    small = picture.resize((SIDE, SIDE), Image.Resampling.BILINEAR)
    return np.asarray(small, np.float32).transpose(2, 0, 1) / 255


def averages(images, weights, bias):
    """The convolution with stride 2, ReLU, and the average of each channel."""
    padded = np.pad(images, ((0, 0), (0, 0), (1, 1), (1, 1)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(2, 3))[:, :, ::2, ::2]
    maps = np.einsum("nchwij,ocij->nohw", windows, weights, optimize=True) + bias[None, :, None, None]
    return np.maximum(maps, 0).mean((2, 3))


def fit(features, classes):
    weights, bias = np.zeros((len(LABELS), CHANNELS)), np.zeros(len(LABELS))
    mean, scale = features.mean(0), features.std(0) + 1e-6
    normal, wanted = (features - mean) / scale, np.eye(len(LABELS))[classes]
    for _ in range(3000):
        scores = normal @ weights.T + bias
        scores = np.exp(scores - scores.max(1, keepdims=True))
        error = scores / scores.sum(1, keepdims=True) - wanted
        weights -= 0.5 * (error.T @ normal / len(normal) + 1e-4 * weights)
        bias -= 0.5 * error.mean(0)
    weights = weights / scale
    return weights.astype(np.float32), (bias - weights @ mean).astype(np.float32)


class Pictures(CalibrationDataReader):
    def __init__(self, pictures):
        self.inputs = ({"input": pixels(picture)[None]} for picture in pictures)

    def get_next(self):
        return next(self.inputs, None)


def main():
    folder = pathlib.Path(__file__).parent
    random = np.random.default_rng(6)
    weights = random.normal(0, 0.35, (CHANNELS, 3, 3, 3)).astype(np.float32)
    bias = random.uniform(-0.2, 0.4, CHANNELS).astype(np.float32)
    pictures = [(draw(label, random), index) for index, label in enumerate(LABELS) for _ in range(60)]
    classes = np.array([index for _, index in pictures])
    features = averages(np.stack([pixels(picture) for picture, _ in pictures]), weights, bias)
    head, offset = fit(features[::2], classes[::2])
    right = ((features[1::2] @ head.T + offset).argmax(1) == classes[1::2]).mean()
    print(f"{right:.3f} of the drawn pictures that the head has not seen")

    def constant(name, value):
        return numpy_helper.from_array(value, name)

    graph = helper.make_graph(
        [
            helper.make_node("Conv", ["input", "w", "b"], ["maps"], "conv", kernel_shape=[3, 3], pads=[1] * 4, strides=[2, 2]),
            helper.make_node("Relu", ["maps"], ["active"], "relu"),
            helper.make_node("GlobalAveragePool", ["active"], ["averages"], "average"),
            helper.make_node("Flatten", ["averages"], ["features"], "flatten"),
            helper.make_node("Gemm", ["features", "head", "offset"], ["scores"], "head", transB=1),
        ],
        "pattern",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, [1, 3, SIDE, SIDE])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, [1, len(LABELS)])],
        [constant("w", weights), constant("b", bias), constant("head", head), constant("offset", offset)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    onnx.checker.check_model(model)
    with tempfile.TemporaryDirectory() as scratch:
        onnx.save(model, f"{scratch}/float.onnx")
        quantize_static(
            f"{scratch}/float.onnx",
            folder / "pattern.onnx",
            Pictures(picture for picture, _ in pictures[::4]),
            quant_format=QuantFormat.QOperator,
            op_types_to_quantize=["Conv", "Relu"], # averages and head stay float, as in the shipped model
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
        )
    (folder / "pattern-labels.txt").write_text("".join(label + "\n" for label in LABELS))
    (folder / "pattern.toml").write_text(
        f'[input]\nname = "input"\nsize = [{SIDE}, {SIDE}]\n'
        f'preprocess = {{ resize = {SIDE}, crop = {SIDE}, order = "rgb", mean = [0.0, 0.0, 0.0], std = [1.0, 1.0, 1.0], '
        f'scale = {1 / 255:.10f}, filter = "bilinear" }}\n\n[output]\nkind = "logits"\nlabels = "pattern-labels.txt"\n'
    )


main()
