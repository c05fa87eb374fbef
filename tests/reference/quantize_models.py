#!/usr/bin/env python3
"""Small float networks for `spotter quantize`, and what onnxruntime makes of them and of their int8 forms.

    python3 -m venv /tmp/reference && /tmp/reference/bin/pip install -r tests/reference/requirements-onnx.txt
    /tmp/reference/bin/python tests/reference/quantize_models.py target/release/spotter

Writes tests/models/quantize/NAME.onnx (float), NAME-int8.onnx (made by the given spotter from the float one and tests/photos), their
manifests, and reference.json: three inputs (integers, channels first), the scores of both. Weights come from a seeded generator.
"""
import json
import pathlib
import subprocess
import sys

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper

from small_net import SIDE, Net, manifest

ROOT = pathlib.Path(__file__).resolve().parents[2]
OUT = ROOT / "tests/models/quantize"
RNG = np.random.Generator(np.random.PCG64(20261124))
MANIFEST = manifest("quantize_models.py")


class FloatNet(Net):
    """With batch norms of random statistics."""

    def __init__(self):
        super().__init__(RNG)

    def norm(self, x, channels):
        uniform = [RNG.uniform(0.5, 1.5, channels).astype(np.float32) for _ in range(2)]
        gamma, variance = map(self.constant, uniform)
        return self.node("BatchNormalization",
                         [x, gamma, self.normal(channels, scale=0.1), self.normal(channels, scale=0.1), variance], epsilon=1e-3)


def vgg(net):
    """Convolutions with a bias, pools, three fully connected layers: the first behind an image of 4x4."""
    x = net.node("Relu", [net.conv("input", 3, 12)])
    x = net.node("MaxPool", [x], kernel_shape=[2, 2], strides=[2, 2])
    x = net.node("Relu", [net.conv(x, 12, 20)])
    x = net.node("MaxPool", [x], kernel_shape=[2, 2], strides=[2, 2])
    x = net.node("Flatten", [x], axis=1)
    x = net.node("Gemm", [x, net.normal(24, 320, scale=0.08), net.normal(24, scale=0.1)], transB=1)
    x = net.node("Dropout", [net.node("Relu", [x])])
    # Keras's form: a matrix, then a bias; and one without
    x = net.node("Add", [net.node("MatMul", [x, net.normal(24, 16, scale=0.3)]), net.normal(16, scale=0.1)])
    x = net.node("MatMul", [net.node("Relu", [x]), net.normal(16, 16, scale=0.3)])
    return net.node("Gemm", [x, net.normal(7, 16, scale=0.4), net.normal(7, scale=0.1)], transB=1)


def resnet(net):
    """Batch norm, a residual sum with a Relu behind it, a projection, a global average."""
    x = net.node("Relu", [net.norm(net.conv("input", 3, 16, kernel=5, stride=2, bias=False), 16)])
    x = net.node("MaxPool", [x], kernel_shape=[3, 3], strides=[1, 1], pads=[1] * 4)
    y = net.node("Relu", [net.norm(net.conv(x, 16, 16, bias=False), 16)])
    y = net.norm(net.conv(y, 16, 16, bias=False), 16)
    x = net.node("Relu", [net.node("Add", [y, x])])
    y = net.node("Relu", [net.norm(net.conv(x, 16, 24, stride=2, bias=False), 24)])
    y = net.norm(net.conv(y, 24, 24, bias=False), 24)
    x = net.node("Relu", [net.node("Add", [y, net.norm(net.conv(x, 16, 24, kernel=1, stride=2, bias=False, pads=[0] * 4), 24)])])
    x = net.node("Flatten", [net.node("GlobalAveragePool", [x])], axis=1)
    return net.node("Gemm", [x, net.normal(7, 24, scale=0.4), net.normal(7, scale=0.1)], transB=1)


def mobile(net):
    """Relu6, depthwise layers, a sum without activation that is read twice, squeeze and excitation, a sigmoid."""
    x = net.relu6(net.norm(net.conv("input", 3, 16, stride=2), 16))
    x = net.norm(net.conv(x, 16, 8, kernel=1, bias=False), 8)
    for _ in range(2):
        y = net.relu6(net.norm(net.conv(x, 8, 24, kernel=1, bias=False), 24))
        y = net.relu6(net.norm(net.conv(y, 24, 24, group=24, bias=False), 24))
        x = net.node("Add", [net.norm(net.conv(y, 24, 8, kernel=1, bias=False), 8), x])
    gate = net.node("Relu", [net.conv(net.node("GlobalAveragePool", [x]), 8, 4, kernel=1)])
    gate = net.node("Sigmoid", [net.conv(gate, 4, 8, kernel=1)])
    x = net.node("Mul", [x, gate])
    x = net.node("Relu", [net.conv(x, 8, 16, kernel=1)])
    x = net.node("Flatten", [net.node("GlobalAveragePool", [x])], axis=1)
    return net.node("Gemm", [x, net.normal(7, 16, scale=0.4), net.normal(7, scale=0.1)], transB=1)


def keras(net):
    """What converters from Keras write: channels last, with transpositions between; paddings, batch norms and biases as nodes of their own;
    a batch norm behind an activation; a matrix on an image that was flattened channels last."""
    def channel_norm(x, channels):
        x = net.node("Sub", [x, net.normal(1, channels, 1, 1, scale=0.1)])
        x = net.node("Mul", [x, net.constant(RNG.uniform(0.5, 1.5, (1, channels, 1, 1)).astype(np.float32))])
        return net.node("Add", [x, net.normal(channels, 1, 1, scale=0.1)])

    def pad(x, low, high):
        return net.node("Pad", [x, net.constant(np.array([0, 0, low, low, 0, 0, high, high]))])

    def first(x):
        return net.node("Transpose", [x], perm=[0, 3, 1, 2])

    def last(x):
        return net.node("Transpose", [x], perm=[0, 2, 3, 1])

    x = channel_norm(net.conv(pad(first("input"), 0, 1), 3, 12, stride=2, bias=False, pads=[0] * 4), 12)
    x = first(net.node("Relu", [last(x)]))
    x = net.node("MaxPool", [pad(x, 1, 1)], kernel_shape=[3, 3], strides=[2, 2])
    skip = x = net.norm(x, 12)
    x = net.node("Relu", [net.node("Add", [net.conv(x, 12, 12, bias=False), net.normal(1, 12, 1, 1, scale=0.1)])])
    x = net.norm(x, 12)
    x = first(net.node("Relu", [net.node("Add", [last(net.conv(x, 12, 12)), last(skip)])]))
    x = net.node("Reshape", [last(x), net.constant(np.array([1, 192]))])
    x = net.node("Add", [net.node("MatMul", [x, net.normal(192, 16, scale=0.1)]), net.normal(16, scale=0.1)])
    return net.node("Add", [net.node("MatMul", [net.node("Relu", [x]), net.normal(16, 7, scale=0.3)]), net.normal(7, scale=0.1)])


def run(path, inputs):
    options = onnxruntime.SessionOptions()
    # without VNNI onnxruntime sums two products of bytes in 16 bits, which overflow; this makes it exact, but only as part of
    # its optimisations
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.add_session_config_entry("session.x64quantprecision", "1")
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return [[float(f"{v:.6g}") for v in session.run(None, {"input": x})[0].ravel()] for x in inputs]


def main(spotter):
    OUT.mkdir(exist_ok=True)
    references = {}
    for build in (vgg, resnet, mobile, keras):
        net, name = FloatNet(), build.__name__
        build(net)
        net.nodes[-1].output[0] = "scores"
        channels_last = build is keras
        tensors = [("input", [1, SIDE, SIDE, 3] if channels_last else [1, 3, SIDE, SIDE]), ("scores", [1, 7])]
        inputs, outputs = [[helper.make_tensor_value_info(n, TensorProto.FLOAT, s)] for n, s in tensors]
        graph = helper.make_graph(net.nodes, name, inputs, outputs, net.constants)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
        onnx.checker.check_model(model, full_check=True)
        path, int8 = OUT / f"{name}.onnx", OUT / f"{name}-int8.onnx"
        onnx.save(model, path)
        path.with_suffix(".toml").write_text(MANIFEST)
        subprocess.run([spotter, "quantize", path, "--calibration", ROOT / "tests/photos", "--output", int8], check=True)
        made = onnx.load(int8)
        onnx.checker.check_model(made, full_check=True)
        assert {n.domain for n in made.graph.node} == {""} and [o.domain for o in made.opset_import] == [""]
        photos = [RNG.integers(0, 256, (3, 4, 4)).repeat(4, 1).repeat(4, 2) for _ in range(3)]
        values = [((p - 128) / 64).astype(np.float32)[None] for p in photos]
        if channels_last:
            values = [np.ascontiguousarray(v.transpose(0, 2, 3, 1)) for v in values]
        references[name] = {
            "photos": [p.ravel().tolist() for p in photos], "float": run(path, values), "int8": run(int8, values),
        }
    (OUT / "reference.json").write_text(json.dumps(references, separators=(",", ":")).replace('],"', '],\n"') + "\n")


main(sys.argv[1])
