"""The full int8 VGG16 with seeded weights as LiteRT reads it: a flatbuffer, int8 activations, weights with a scale an output channel.

    python litert_vgg16.py FOLDER     writes vgg16.tflite
"""
import pathlib
import sys

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema

from full_vgg16 import DENSE, LAYERS, SCALE, SEED, relative_scale, seeded_weights

OPERATORS = {
    "conv": schema.BuiltinOperator.CONV_2D,
    "pool": schema.BuiltinOperator.MAX_POOL_2D,
    "reshape": schema.BuiltinOperator.RESHAPE,
    "dense": schema.BuiltinOperator.FULLY_CONNECTED,
}
RELU = schema.ActivationFunctionType.RELU


def quantisation(scales, zero_points, axis=0):
    it = schema.QuantizationParametersT()
    it.scale, it.zeroPoint, it.quantizedDimension = np.atleast_1d(np.float32(scales)), np.atleast_1d(np.int64(zero_points)), axis
    return it


class Graph:
    def __init__(self):
        self.tensors, self.buffers, self.operators = [], [schema.BufferT()], []

    def tensor(self, shape, kind, parameters, data=None):
        tensor = schema.TensorT()
        tensor.name, tensor.shape, tensor.type, tensor.quantization = f"t{len(self.tensors)}", list(shape), kind, parameters
        if data is not None:
            buffer = schema.BufferT()
            buffer.data = np.frombuffer(data.tobytes(), np.uint8)
            self.buffers.append(buffer)
            tensor.buffer = len(self.buffers) - 1
        self.tensors.append(tensor)
        return len(self.tensors) - 1

    def activations(self, shape):
        # The codes of the other forms, 0 to 255 with zero point 0, moved by 128.
        return self.tensor(shape, schema.TensorType.INT8, quantisation(SCALE, -128))

    def operator(self, kind, inputs, output, options_type, options):
        it = schema.OperatorT()
        it.opcodeIndex, it.inputs, it.outputs = list(OPERATORS).index(kind), inputs, [output]
        it.builtinOptionsType, it.builtinOptions = options_type, options
        self.operators.append(it)
        return output

    def parameters(self, shape):
        """Weights and bias; a dense layer's scales are all equal."""
        outputs, inputs = shape[0], int(np.prod(shape[1:]))
        scales = np.full(outputs if len(shape) == 4 else 1, relative_scale(inputs), np.float32)
        zeros = np.zeros(len(scales), np.int64)
        weights = self.tensor(shape, schema.TensorType.INT8, quantisation(scales, zeros), seeded_weights(RNG, shape))
        bias = self.tensor([outputs], schema.TensorType.INT32, quantisation(scales * SCALE, zeros), np.zeros(outputs, np.int32))
        return [weights, bias]

    def convolution(self, x, side, inputs, outputs):
        options = schema.Conv2DOptionsT()
        options.padding, options.strideW, options.strideH = schema.Padding.SAME, 1, 1
        options.fusedActivationFunction = RELU
        operands = [x, *self.parameters((outputs, 3, 3, inputs))]
        return self.operator("conv", operands, self.activations([1, side, side, outputs]), schema.BuiltinOptions.Conv2DOptions, options)

    def pool(self, x, side, channels):
        options = schema.Pool2DOptionsT()
        options.padding = schema.Padding.VALID
        options.strideW = options.strideH = options.filterWidth = options.filterHeight = 2
        return self.operator("pool", [x], self.activations([1, side, side, channels]), schema.BuiltinOptions.Pool2DOptions, options)

    def flatten(self, x, length):
        options = schema.ReshapeOptionsT()
        options.newShape = [1, length]
        shape = self.tensor([2], schema.TensorType.INT32, None, np.array([1, length], np.int32))
        return self.operator("reshape", [x, shape], self.activations([1, length]), schema.BuiltinOptions.ReshapeOptions, options)

    def dense(self, x, inputs, outputs, last):
        options = schema.FullyConnectedOptionsT()
        if not last:
            options.fusedActivationFunction = RELU
        operands = [x, *self.parameters((outputs, inputs))]
        return self.operator("dense", operands, self.activations([1, outputs]), schema.BuiltinOptions.FullyConnectedOptions, options)

    def pack(self, inputs, outputs):
        graph = schema.SubGraphT()
        graph.tensors, graph.operators, graph.inputs, graph.outputs = self.tensors, self.operators, inputs, outputs
        model = schema.ModelT()
        model.version, model.subgraphs, model.buffers, model.operatorCodes = 3, [graph], self.buffers, []
        for code in OPERATORS.values():
            it = schema.OperatorCodeT()
            it.builtinCode = it.deprecatedBuiltinCode = code
            # The versions in which these operators took int8 and a scale a channel.
            it.version = {"CONV_2D": 3, "FULLY_CONNECTED": 4, "MAX_POOL_2D": 2, "RESHAPE": 1}[
                next(name for name, value in vars(schema.BuiltinOperator).items() if value == code)]
            model.operatorCodes.append(it)
        builder = flatbuffers.Builder(160 << 20)
        builder.Finish(model.Pack(builder), b"TFL3")
        return builder.Output()


def build():
    global RNG
    RNG = np.random.Generator(np.random.PCG64(SEED))
    graph, side, channels = Graph(), 224, 3
    x = first = graph.activations([1, side, side, channels])
    for layer in LAYERS:
        if layer == "M":
            side //= 2
            x = graph.pool(x, side, channels)
        else:
            x, channels = graph.convolution(x, side, channels, layer), layer
    x = graph.flatten(x, side * side * channels)
    for index, (inputs, outputs) in enumerate(DENSE):
        x = graph.dense(x, inputs, outputs, index == 2)
    return graph.pack([first], [x])


def main():
    path = pathlib.Path(sys.argv[1]) / "vgg16.tflite"
    if not path.exists():
        path.with_suffix(".part").write_bytes(build())
        path.with_suffix(".part").rename(path)


if __name__ == "__main__":
    main()
