#!/usr/bin/env python3
"""Small networks in every form that onnxruntime's quantize_static writes, and what onnxruntime makes of them.

    python3 -m venv /tmp/reference && /tmp/reference/bin/pip install -r tests/reference/requirements-onnx.txt
    /tmp/reference/bin/python tests/reference/import_models.py

Writes tests/models/import/NET-FORM.onnx with a manifest beside it, and reference.json: by model the input (integers, channels first), the scores, and of
each quantised tensor some codes. NET is shaped like a known network; FORM is the quantised form (qop, qdq), the activations and the weights. Weights come
from a seeded generator.
"""
import json
import pathlib
import tempfile

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper
from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process

from small_net import SIDE, Net, manifest

OUT = pathlib.Path(__file__).resolve().parents[1] / "models/import"
# codes kept of each tensor, evenly spread over it
SAMPLES = 48
RNG = np.random.Generator(np.random.PCG64(20261125))
MANIFEST = manifest("import_models.py")
U8, S8 = QuantType.QUInt8, QuantType.QInt8
FORMS = {
    # onnxruntime's defaults: int8 activations, int8 weights, QDQ
    "qdq-s8s8": {"quant_format": QuantFormat.QDQ, "activation_type": S8, "weight_type": S8},
    "qdq-u8s8-channel": {"quant_format": QuantFormat.QDQ, "activation_type": U8, "weight_type": S8, "per_channel": True},
    "qop-u8u8": {"quant_format": QuantFormat.QOperator, "activation_type": U8, "weight_type": U8},
    "qop-u8s8-channel": {"quant_format": QuantFormat.QOperator, "activation_type": U8, "weight_type": S8, "per_channel": True},
    # onnxruntime has no exact QLinearConv of int8 by int8 on every CPU; with weights of 7 bits nothing overflows
    "qop-s8s8": {"quant_format": QuantFormat.QOperator, "activation_type": S8, "weight_type": S8, "reduce_range": True},
}


class FloatNet(Net):
    """With the parts that these networks repeat. A tensor is not called like its node, as in exported models."""

    def __init__(self):
        super().__init__(RNG, "_out")

    def relu(self, x):
        return self.node("Relu", [x])

    def swish(self, x):
        return self.node("Mul", [x, self.node("Sigmoid", [x])])

    def head(self, x, channels):
        flat = self.node("Flatten", [self.node("GlobalAveragePool", [x])], axis=1)
        return self.gemm(flat, channels, 7)

    def gemm(self, x, inputs, outputs):
        scale = (2 / inputs) ** 0.5
        return self.node("Gemm", [x, self.normal(outputs, inputs, scale=scale), self.normal(outputs, scale=0.1)], transB=1)


def vgg(net):
    """Convolutions, pools, fully connected layers: one behind an image, one as Keras writes it (a matrix, then a bias)."""
    x = net.relu(net.conv("input", 3, 8))
    x = net.node("MaxPool", [x], kernel_shape=[2, 2], strides=[2, 2])
    x = net.relu(net.conv(x, 8, 12))
    x = net.node("MaxPool", [x], kernel_shape=[2, 2], strides=[2, 2])
    x = net.relu(net.gemm(net.node("Flatten", [x], axis=1), 192, 16))
    x = net.node("MatMul", [x, net.normal(16, 10, scale=0.4)])
    return net.node("Gemm", [net.node("LeakyRelu", [x], alpha=0.1), net.normal(10, 7, scale=0.4), net.normal(7)])


def resnet(net):
    """Residual sums with a Relu behind them, a projection, a max-pool with padding."""
    x = net.relu(net.conv("input", 3, 8, kernel=5, stride=2))
    x = net.node("MaxPool", [x], kernel_shape=[3, 3], strides=[1, 1], pads=[1] * 4)
    x = net.relu(net.node("Add", [net.conv(net.relu(net.conv(x, 8, 8)), 8, 8), x]))
    y = net.conv(net.relu(net.conv(x, 8, 12, stride=2)), 12, 12)
    x = net.relu(net.node("Add", [y, net.conv(x, 8, 12, kernel=1, stride=2, pads=[0] * 4)]))
    return net.head(x, 12)


def mobile(net):
    """Relu6, depthwise layers, a sum without an activation."""
    x = net.relu6(net.conv("input", 3, 8, stride=2))
    x = net.conv(x, 8, 8, kernel=1)
    y = net.relu6(net.conv(x, 8, 16, kernel=1))
    y = net.relu6(net.conv(y, 16, 16, group=16))
    x = net.node("Add", [net.conv(y, 16, 8, kernel=1), x])
    y = net.relu6(net.conv(x, 8, 16, kernel=1))
    y = net.relu6(net.conv(y, 16, 16, group=16, stride=2))
    return net.head(net.conv(y, 16, 12, kernel=1), 12)


def efficient(net):
    """Swish, squeeze and excitation."""
    x = net.swish(net.conv("input", 3, 8, stride=2))
    x = net.swish(net.conv(x, 8, 8, group=8))
    gate = net.swish(net.conv(net.node("GlobalAveragePool", [x]), 8, 4, kernel=1))
    x = net.node("Mul", [x, net.node("Sigmoid", [net.conv(gate, 4, 8, kernel=1)])])
    x = net.node("Add", [net.conv(x, 8, 8, kernel=1), x])
    return net.head(net.swish(net.conv(x, 8, 12, kernel=1)), 12)


def squeeze(net):
    """Two branches side by side, an average pool, no fully connected layer."""
    x = net.relu(net.conv("input", 3, 8, stride=2))
    x = net.relu(net.conv(x, 8, 4, kernel=1))
    x = net.node("Concat", [net.relu(net.conv(x, 4, 6, kernel=1)), net.relu(net.conv(x, 4, 10))], axis=1)
    x = net.node("AveragePool", [x], kernel_shape=[2, 2], strides=[2, 2])
    x = net.relu(net.conv(x, 16, 7, kernel=1))
    return net.node("Flatten", [net.node("GlobalAveragePool", [x])], axis=1)


class Photos(CalibrationDataReader):
    def __init__(self):
        self.photos = iter([photo() for _ in range(12)])

    def get_next(self):
        found = next(self.photos, None)
        return None if found is None else {"input": found}


def photo():
    return integers_to_values(RNG.integers(0, 256, (3, 4, 4)).repeat(4, 1).repeat(4, 2))


def integers_to_values(photo):
    return ((photo - 128) / 64).astype(np.float32)[None]


def float_model(build):
    net = FloatNet()
    build(net)
    net.nodes[-1].output[0] = "scores"
    tensors = [("input", [1, 3, SIDE, SIDE]), ("scores", [1, 7])]
    inputs, outputs = [[helper.make_tensor_value_info(n, TensorProto.FLOAT, s)] for n, s in tensors]
    model = helper.make_model(helper.make_graph(net.nodes, build.__name__, inputs, outputs, net.constants),
                              opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    return model


def run(model, values, reduced):
    """The outputs by name. onnxruntime folds QDQ as part of its optimisations; on a CPU without VNNI it sums two products of bytes in 16 bits, which
    overflow where the weights are not reduced, unless it is told not to."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.add_session_config_entry("session.x64quantprecision", "0" if reduced else "1")
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return dict(zip([o.name for o in session.get_outputs()], session.run(None, {"input": values})))


def quantised_tensors(model):
    """Tensors of codes, by the node that a person would name: the QDQ form's is the operation between the pairs."""
    makers = {output: node for node in model.graph.node for output in node.output}
    found = {}
    for node in model.graph.node:
        if node.op_type.startswith("Q"):
            inner = makers.get(node.input[0]) if node.op_type == "QuantizeLinear" else node
            if inner is not None:
                found[inner.name] = node.output[0]
    return found


def main():
    OUT.mkdir(exist_ok=True)
    references = {}
    for build in (vgg, resnet, mobile, efficient, squeeze):
        with tempfile.TemporaryDirectory() as folder:
            plain, prepared = pathlib.Path(folder) / "plain.onnx", pathlib.Path(folder) / "prepared.onnx"
            onnx.save(float_model(build), plain)
            quant_pre_process(str(plain), str(prepared), skip_symbolic_shape=True)
            for form, options in FORMS.items():
                name = f"{build.__name__}-{form}"
                path = OUT / f"{name}.onnx"
                quantize_static(str(prepared), str(path), Photos(), calibrate_method=CalibrationMethod.MinMax, **options)
                model = onnx.load(path)
                # shapes of tensors, which nobody needs
                del model.graph.value_info[:]
                onnx.save(model, path)
                path.with_suffix(".toml").write_text(MANIFEST)
                integers = RNG.integers(0, 256, (3, 4, 4)).repeat(4, 1).repeat(4, 2)
                values, tensors = integers_to_values(integers), quantised_tensors(model)
                scores = run(model, values, "reduce_range" in options)["scores"]
                traced = onnx.ModelProto()
                traced.CopyFrom(model)
                for tensor in tensors.values():
                    traced.graph.output.append(onnx.ValueInfoProto(name=tensor))
                results, codes = run(traced, values, "reduce_range" in options), {}
                for node, tensor in tensors.items():
                    # as Spotter's trace: channels last, u8
                    array = results[tensor]
                    flat = (array.transpose(0, 2, 3, 1) if array.ndim == 4 else array).ravel().astype(int)
                    flat = flat + (128 if array.dtype == np.int8 else 0)
                    codes[node] = {"length": len(flat), "codes": flat[:: max(1, len(flat) // SAMPLES)].tolist()}
                references[name] = {
                    "photo": integers.ravel().tolist(), "scores": [float(f"{v:.6g}") for v in scores.ravel()], "layers": codes,
                }
                print(name, path.stat().st_size, np.round(scores.ravel()[:5], 3), {n.op_type for n in model.graph.node})
    (OUT / "reference.json").write_text(json.dumps(references, separators=(",", ":")).replace('}},"', '}},\n"') + "\n")


main()
