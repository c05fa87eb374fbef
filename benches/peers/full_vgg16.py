"""The full VGG16 (138 M parameters) in int8 with seeded weights, in the two forms that engines take: QOperator and QDQ.

    python full_vgg16.py FOLDER     writes vgg16-qoperator.onnx, vgg16-qdq.onnx and the manifest of the first

The time of integer kernels does not depend on the values, but the choice of exact Winograd does (its bound is checked on the weights), so the weights are
drawn about as small against their largest as those of the trained network are.
"""
import pathlib
import sys

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

# Output channels of the 3x3 convolutions; "M" is a 2x2 max-pool.
LAYERS = [64, 64, "M", 128, 128, "M", 256, 256, 256, "M", 512, 512, 512, "M", 512, 512, 512, "M"]
DENSE = [(25088, 4096), (4096, 4096), (4096, 1000)]
SCALE = np.float32(0.05)
SEED = 20261124
# The standard deviation of the drawn weights, in codes.
DEVIATION = 29.5
MANIFEST = """# Seeded weights, for timing: it recognises nothing.
[input]
name = "input"
size = [224, 224]
preprocess = "torchvision"

[output]
kind = "logits"
"""


def seeded_weights(generator, shape):
    return np.clip(np.rint(generator.standard_normal(shape, np.float32) * DEVIATION), -127, 127).astype(np.int8)


def relative_scale(inputs):
    """A weight's step such that activations keep their size from layer to layer."""
    return np.float32(2.0 / (DEVIATION * np.sqrt(inputs)))


class Graph:
    """Nodes and constants of one form."""

    def __init__(self, qdq):
        self.qdq, self.nodes, self.constants, self.count = qdq, [], [], 0

    def constant(self, value):
        name = f"c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def node(self, op, inputs, **attributes):
        self.count += 1
        self.nodes.append(helper.make_node(op, inputs, [f"t{self.count}"], name=f"{op}_{self.count}", **attributes))
        return f"t{self.count}"

    def grid(self):
        return [self.constant(SCALE), self.constant(np.uint8(0))]

    def requantised(self, x):
        """Through 8 bits and back: what a QDQ graph writes around each operator."""
        grid = self.grid()
        return self.node("DequantizeLinear", [self.node("QuantizeLinear", [x, *grid]), *grid])

    def weights(self, shape, axis, scales):
        weights = seeded_weights(RNG, shape)
        zeros = np.zeros(len(scales), np.int8)
        names = [self.constant(weights), self.constant(scales), self.constant(zeros)]
        return [self.node("DequantizeLinear", names, axis=axis)] if self.qdq else names

    def bias(self, outputs, scales):
        bias = RNG.integers(-1000, 1000, outputs).astype(np.int32)
        if not self.qdq:
            return self.constant(bias)
        grid = [self.constant((scales * SCALE).astype(np.float32)), self.constant(np.zeros(outputs, np.int32))]
        return self.node("DequantizeLinear", [self.constant(bias), *grid], axis=0)

    def convolution(self, x, inputs, outputs):
        scales = np.full(outputs, relative_scale(9 * inputs))
        weights, bias = self.weights((outputs, inputs, 3, 3), 0, scales), self.bias(outputs, scales)
        window = {"kernel_shape": [3, 3], "pads": [1] * 4}
        if self.qdq:
            return self.requantised(self.node("Relu", [self.node("Conv", [x, *weights, bias], **window)]))
        return self.node("QLinearConv", [x, *self.grid(), *weights, *self.grid(), bias], **window)

    def dense(self, x, inputs, outputs, last):
        scale = np.array([relative_scale(inputs)])
        if self.qdq:
            shape = (outputs, inputs)
            weights, bias = self.weights(shape, 0, np.repeat(scale, outputs)), self.bias(outputs, np.repeat(scale, outputs))
            y = self.node("Gemm", [x, *weights, bias], transB=1)
            return y if last else self.requantised(self.node("Relu", [y]))
        # The standard domain's quantised product has no bias.
        weights = seeded_weights(RNG, (inputs, outputs))
        operands = [self.constant(weights), self.constant(scale[0]), self.constant(np.int8(0))]
        return self.node("QLinearMatMul", [x, *self.grid(), *operands, *self.grid()])


def build(qdq):
    global RNG
    RNG = np.random.Generator(np.random.PCG64(SEED))
    graph = Graph(qdq)
    x = graph.requantised("input") if qdq else graph.node("QuantizeLinear", ["input", *graph.grid()])
    channels = 3
    for layer in LAYERS:
        if layer == "M":
            x = graph.node("MaxPool", [x], kernel_shape=[2, 2], strides=[2, 2])
        else:
            x, channels = graph.convolution(x, channels, layer), layer
    x = graph.node("Flatten", [x])
    for index, (inputs, outputs) in enumerate(DENSE):
        x = graph.dense(x, inputs, outputs, index == 2)
    if not qdq:
        x = graph.node("DequantizeLinear", [x, *graph.grid()])
    graph.nodes[-1].output[0] = "logits"
    value = lambda name, shape: helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
    body = helper.make_graph(graph.nodes, "vgg16", [value("input", [1, 3, 224, 224])], [value("logits", [1, 1000])], graph.constants)
    return helper.make_model(body, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)


def main():
    folder = pathlib.Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    for name, qdq in [("qoperator", False), ("qdq", True)]:
        path = folder / f"vgg16-{name}.onnx"
        if not path.exists():
            onnx.save(build(qdq), path.with_suffix(".part"))
            path.with_suffix(".part").rename(path)
    (folder / "vgg16-qoperator.toml").write_text(MANIFEST)


if __name__ == "__main__":
    main()
