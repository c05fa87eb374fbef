#!/usr/bin/env python3
"""Small quantised networks, one for each thing that the lowering must get right, and what onnxruntime makes of them.

    python3 -m venv /tmp/reference && /tmp/reference/bin/pip install -r tests/reference/requirements-onnx.txt
    /tmp/reference/bin/python tests/reference/small_models.py

Writes tests/models/NAME.onnx with a manifest NAME.toml beside it, and tests/models/reference.json: the input (integers, channels first) and the
scores. Weights come from a seeded generator; nothing here is trained.
"""
import json
import pathlib

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

OUT = pathlib.Path(__file__).resolve().parents[1] / "models"
SIDE = 16
RNG = np.random.Generator(np.random.PCG64(20261124))
MANIFEST = """# Made by tests/reference/small_models.py.
[input]
name = "input"
size = [16, 16]
preprocess = { order = "rgb", mean = [128.0, 128.0, 128.0] }

[output]
kind = "logits"
"""


class Net:
    """A graph that grows node by node; every method returns the name of its output."""

    def __init__(self, activation=np.uint8):
        self.nodes, self.constants, self.activation, self.count = [], [], activation, 0

    def constant(self, value):
        name = f"c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def node(self, op, inputs, **attributes):
        self.count += 1
        name = f"{op.lower()}_{self.count}"
        self.nodes.append(helper.make_node(op, inputs, [name], name=name, **attributes))
        return name

    def zero(self):
        low = -128 if self.activation == np.int8 else 0
        return self.constant(self.activation(low + int(RNG.integers(90, 160))))

    def quantize(self, x, scale):
        q = (self.constant(np.float32(scale)), self.zero())
        return self.node("QuantizeLinear", [x, *q]), q

    def dequantize(self, x, q):
        return self.node("DequantizeLinear", [x, *q])

    def conv(self, x, q, channels, outputs, kernel=3, group=1, stride=1, pads=None, weight="i8", scale=0.6):
        shape = (outputs, channels // group, kernel, kernel)
        if weight == "i8":
            weights, zeros = RNG.integers(-127, 128, shape).astype(np.int8), np.zeros(outputs, np.int8)
            scales = RNG.uniform(0.001, 0.003, outputs).astype(np.float32)
        else:
            weights, zeros = RNG.integers(0, 256, shape).astype(np.uint8), np.uint8(101)
            scales = np.float32(0.002)
        bias = RNG.integers(-2000, 2000, outputs).astype(np.int32)
        out = (self.constant(np.float32(scale)), self.zero())
        inputs = [x, *q, self.constant(weights), self.constant(scales), self.constant(zeros), *out, self.constant(bias)]
        pads = [kernel // 2] * 4 if pads is None else pads
        return self.node("QLinearConv", inputs, kernel_shape=[kernel] * 2, group=group, strides=[stride] * 2, pads=pads), out

    def matmul(self, x, q, inputs, outputs):
        weights = self.constant(RNG.integers(-127, 128, (inputs, outputs)).astype(np.int8))
        out = (self.constant(np.float32(0.8)), self.zero())
        operands = [x, *q, weights, self.constant(np.float32(0.002)), self.constant(np.int8(0)), *out]
        return self.node("QLinearMatMul", operands), out

    def integer_product(self, op, x, q, weights, bias, **attributes):
        """A product that gives 32-bit sums, and the floats that they stand for: as onnxruntime's `quantize_dynamic` writes it."""
        zero = self.constant(np.int8(5))
        sums = self.node("Cast", [self.node(op, [x, weights, q[1], zero], **attributes)], to=1)
        scale = self.node("Mul", [q[0], self.constant(np.float32(0.002))])
        return self.node("Add", [self.node("Mul", [sums, scale]), self.constant(bias)])

    def head(self, x, channels):
        """Mean of each channel, then a float Gemm."""
        flat = self.node("Flatten", [self.node("GlobalAveragePool", [x])], axis=1)
        weights = self.constant(RNG.normal(0, 0.3, (7, channels)).astype(np.float32))
        return self.node("Gemm", [flat, weights, self.constant(RNG.normal(0, 1, 7).astype(np.float32))], transB=1)


def plain(net):
    """Convolutions, fused pool, odd channel counts, the float head."""
    x, q = net.quantize("input", 1.1)
    x, q = net.conv(x, q, 3, 13)
    x, q = net.conv(x, q, 13, 24)
    x = net.node("MaxPool", [x], kernel_shape=[2, 2], strides=[2, 2])
    x, q = net.conv(x, q, 24, 17, kernel=1)
    return net.head(net.dequantize(x, q), 17)


def signed(net):
    """int8 activations, a padded 3x3 max-pool, strides, uneven padding."""
    x, q = net.quantize("input", 1.0)
    x, q = net.conv(x, q, 3, 12, stride=2, pads=[0, 0, 1, 1])
    x = net.node("MaxPool", [x], kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])
    x, q = net.conv(x, q, 12, 9)
    return net.head(net.dequantize(x, q), 9)


def residual(net):
    """uint8 weights with a zero point, depthwise, a residual sum in float that is read twice."""
    x, q = net.quantize("input", 1.0)
    x, q = net.conv(x, q, 3, 16, weight="u8")
    y, p = net.conv(x, q, 16, 16, group=16, weight="u8")
    y, p = net.conv(y, p, 16, 16, kernel=1, weight="u8")
    total = net.node("Add", [net.dequantize(x, q), net.dequantize(y, p)])
    z, r = net.quantize(total, 1.2)
    z, r = net.conv(z, r, 16, 16)
    again = net.node("Add", [net.dequantize(z, r), total])
    a, s = net.quantize(again, 1.5)
    a, s = net.conv(a, s, 16, 8)
    return net.head(net.dequantize(a, s), 8)


def dense(net):
    """Flatten of an image into a quantised matrix product: the columns change places with the layout."""
    x, q = net.quantize("input", 1.0)
    x, q = net.conv(x, q, 3, 6, stride=4)
    flat = net.node("Flatten", [x], axis=1)
    x, q = net.matmul(flat, q, 6 * 4 * 4, 11)
    return net.dequantize(x, q)


def lookup(net):
    """Functions of one code between dequantising and quantising: clip, sigmoid, another scale."""
    x, q = net.quantize("input", 1.0)
    x, q = net.conv(x, q, 3, 8)
    y = net.node("Clip", [net.dequantize(x, q), net.constant(np.float32(0)), net.constant(np.float32(6))])
    x, q = net.quantize(y, 0.05)
    x, q = net.conv(x, q, 8, 8, scale=0.05)
    y = net.node("Sigmoid", [net.dequantize(x, q)])
    x, q = net.quantize(y, 0.01)
    x, q = net.conv(x, q, 8, 8, scale=0.02)
    return net.head(net.dequantize(x, q), 8)


def islands(net):
    """Foreign nodes in the middle, and a value that goes round them: two runs, one feeding the other twice."""
    x, q = net.quantize("input", 1.0)
    x, q = net.conv(x, q, 3, 8)
    y = net.node("Softmax", [net.dequantize(x, q)], axis=1)
    z, r = net.quantize(y, 0.004)
    z, r = net.conv(z, r, 8, 8, scale=0.02)
    w, s = net.conv(x, q, 8, 8)
    both = net.node("Mul", [net.dequantize(z, r), net.dequantize(w, s)])
    a, t = net.quantize(both, 1.0)
    a, t = net.conv(a, t, 8, 8)
    return net.head(net.dequantize(a, t), 8)


def floating(net):
    """No quantised node at all, channels last, as TensorFlow's converters write it."""
    x = net.node("Transpose", ["input"], perm=[0, 3, 1, 2])
    weights = net.constant(RNG.normal(0, 0.1, (5, 3, 3, 3)).astype(np.float32))
    x = net.node("Relu", [net.node("Conv", [x, weights], kernel_shape=[3, 3], pads=[1] * 4)])
    return net.head(x, 5)


def integers(net, quantize=lambda net, x: net.quantize(x, 1.0)):
    """ConvInteger and MatMulInteger, which give 32-bit sums."""
    x, q = quantize(net, "input")
    weights = net.constant(RNG.integers(-127, 128, (6, 3, 3, 3)).astype(np.int8))
    bias = RNG.normal(0, 1, (1, 6, 1, 1)).astype(np.float32)
    x = net.node("Relu", [net.integer_product("ConvInteger", x, q, weights, bias, kernel_shape=[3, 3], strides=[4, 4], pads=[1] * 4)])
    x, q = quantize(net, net.node("Flatten", [x], axis=1))
    weights = net.constant(RNG.integers(-127, 128, (6 * 4 * 4, 7)).astype(np.int8))
    return net.integer_product("MatMulInteger", x, q, weights, RNG.normal(0, 1, 7).astype(np.float32))


def dynamic(net):
    """The same with scales and zero points that are found while it runs."""
    def quantize(net, x):
        names = [f"{x}_{part}" for part in ("codes", "scale", "zero")]
        net.nodes.append(helper.make_node("DynamicQuantizeLinear", [x], names, name=f"{x}_quantize"))
        return names[0], names[1:]
    return integers(net, quantize)


def gemm(net):
    """onnxruntime's QGemm without an output scale, so that it gives floats."""
    x, q = net.quantize("input", 1.0)
    x, q = net.conv(x, q, 3, 6, stride=4)
    weights = net.constant(RNG.integers(-127, 128, (6 * 4 * 4, 7)).astype(np.int8))
    operands = [weights, net.constant(np.float32(0.002)), net.constant(np.int8(0))]
    bias = net.constant(RNG.integers(-2000, 2000, 7).astype(np.int32))
    return net.node("QGemm", [net.node("Flatten", [x], axis=1), *q, *operands, bias], domain="com.microsoft")


def main():
    OUT.mkdir(exist_ok=True)
    references = {}
    for build, activation in [(plain, np.uint8), (signed, np.int8), (residual, np.uint8), (dense, np.uint8),
                              (lookup, np.uint8), (islands, np.uint8), (floating, np.uint8),
                              (integers, np.uint8), (dynamic, np.uint8), (gemm, np.uint8)]:
        net = Net(activation)
        output = build(net)
        net.nodes[-1].output[0] = "scores"
        last = build is floating
        shape = [1, SIDE, SIDE, 3] if last else [1, 3, SIDE, SIDE]
        inputs = [helper.make_tensor_value_info("input", TensorProto.FLOAT, shape)]
        outputs = [helper.make_tensor_value_info("scores", TensorProto.FLOAT, [1, 11 if build is dense else 7])]
        graph = helper.make_graph(net.nodes, build.__name__, inputs, outputs, net.constants)
        opsets = [helper.make_opsetid("", 13)] + [helper.make_opsetid("com.microsoft", 1)] * (build is gemm)
        model = helper.make_model(graph, opset_imports=opsets, ir_version=8)
        onnx.checker.check_model(model)
        path = OUT / f"{build.__name__}.onnx"
        onnx.save(model, path)
        path.with_suffix(".toml").write_text(MANIFEST)
        values = RNG.integers(-128, 128, (1, 3, SIDE, SIDE)).astype(np.float32)
        options = onnxruntime.SessionOptions()
        # as the graph says, without onnxruntime's own rewriting of it
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        scores = session.run(None, {"input": values.transpose(0, 2, 3, 1).copy() if last else values})[0]
        references[build.__name__] = {"input": values.astype(int).ravel().tolist(), "scores": scores.ravel().tolist()}
        print(build.__name__, path.stat().st_size, np.round(scores.ravel()[:5], 3), output)
    (OUT / "reference.json").write_text(json.dumps(references, separators=(",", ":")).replace('"scores"', '\n"scores"') + "\n")


main()
