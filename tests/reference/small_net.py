"""A small float network that grows node by node, for the scripts beside it that make models of 16x16 pictures."""
import numpy as np
from onnx import helper, numpy_helper

SIDE = 16


def manifest(script):
    return f"""# Made by tests/reference/{script}.
[input]
name = "input"
size = [16, 16]
preprocess = {{ order = "rgb", mean = [128.0, 128.0, 128.0], std = [64.0, 64.0, 64.0] }}

[output]
kind = "logits"
"""


class Net:
    """Every method returns the name of its output. Weights come from the generator `rng`, in the order of the calls."""

    def __init__(self, rng, output=""):
        """`output` is what a tensor's name has behind its node's."""
        self.rng, self.output = rng, output
        self.nodes, self.constants, self.count = [], [], 0

    def constant(self, value):
        name = f"c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def normal(self, *shape, scale=1.0):
        return self.constant(self.rng.normal(0, scale, shape).astype(np.float32))

    def node(self, op, inputs, **attributes):
        self.count += 1
        name = f"{op.lower()}_{self.count}"
        self.nodes.append(helper.make_node(op, inputs, [name + self.output], name=name, **attributes))
        return name + self.output

    def conv(self, x, channels, outputs, kernel=3, group=1, stride=1, bias=True, pads=None):
        each = channels // group
        weights = self.normal(outputs, each, kernel, kernel, scale=(2 / (each * kernel * kernel)) ** 0.5)
        inputs = [x, weights] + ([self.normal(outputs, scale=0.1)] if bias else [])
        pads = [kernel // 2] * 4 if pads is None else pads
        return self.node("Conv", inputs, kernel_shape=[kernel] * 2, group=group, strides=[stride] * 2, pads=pads)

    def relu6(self, x):
        return self.node("Clip", [x, self.constant(np.float32(0)), self.constant(np.float32(6))])
