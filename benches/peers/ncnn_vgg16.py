"""The full int8 VGG16 with seeded weights as ncnn reads it: a .param text and a .bin of weights, as its own `ncnn2int8` writes them.

    python ncnn_vgg16.py FOLDER     writes vgg16.ncnn.param and vgg16.ncnn.bin

ncnn's tools are not on PyPI, so the two files are written here. The format: https://github.com/Tencent/ncnn/wiki/param-and-model-file-structure
A convolution that feeds another one hands over 8 bits (int8_scale_term 102), as `ncnn2int8` fuses it; before a pool and a dense layer the values are float.
"""
import pathlib
import sys

import numpy as np

from full_vgg16 import DENSE, LAYERS, SEED, relative_scale, seeded_weights

# The tag before 8-bit weights in a .bin.
INT8 = np.uint32(0x000D4B38)
# Codes a unit: the reciprocal of the grid of the other forms.
ACTIVATION_SCALE = np.float32(20)


class Writer:
    def __init__(self):
        self.layers, self.weights, self.blob = ["Input image 0 1 t0 0=224 1=224 2=3"], bytearray(), 0

    def layer(self, kind, parameters):
        self.blob += 1
        self.layers.append(f"{kind} layer{self.blob} 1 1 t{self.blob - 1} t{self.blob} {parameters}".rstrip())

    def quantised(self, kind, parameters, shape, requantises):
        """8-bit weights, bias, and the scales: of each output's weights, of the input, and of the output where it stays in 8 bits."""
        outputs, inputs = shape[0], int(np.prod(shape[1:]))
        self.layer(kind, f"0={outputs} {parameters} 8={102 if requantises else 2}")
        weights = seeded_weights(RNG, shape).tobytes()
        self.weights += INT8.tobytes() + weights + b"\0" * (-len(weights) % 4)
        self.weights += np.zeros(outputs, np.float32).tobytes()
        self.weights += np.full(outputs, 1 / relative_scale(inputs), np.float32).tobytes()
        self.weights += ACTIVATION_SCALE.tobytes() * (2 if requantises else 1)

    def text(self):
        return "\n".join(["7767517", f"{len(self.layers)} {len(self.layers)}", *self.layers]) + "\n"


def build():
    global RNG
    RNG = np.random.Generator(np.random.PCG64(SEED))
    writer, channels = Writer(), 3
    for index, layer in enumerate(LAYERS):
        if layer == "M":
            writer.layer("Pooling", "0=0 1=2 2=2")
            continue
        last_of_its_stage = LAYERS[index + 1] == "M"
        window = f"1=3 4=1 5=1 6={layer * channels * 9} 9=1"
        writer.quantised("Convolution", window, (layer, channels, 3, 3), not last_of_its_stage)
        channels = layer
    writer.layer("Flatten", "")
    for index, (inputs, outputs) in enumerate(DENSE):
        writer.quantised("InnerProduct", f"1=1 2={inputs * outputs} 9={int(index < 2)}", (outputs, inputs), False)
    return writer


def main():
    folder = pathlib.Path(sys.argv[1])
    weights, text = folder / "vgg16.ncnn.bin", folder / "vgg16.ncnn.param"
    if not (weights.exists() and text.exists()):
        writer = build()
        weights.write_bytes(writer.weights)
        text.write_text(writer.text())


if __name__ == "__main__":
    main()
