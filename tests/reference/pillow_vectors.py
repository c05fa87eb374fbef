#!/usr/bin/env python3
"""Makes the vectors that `tests/preprocess.rs` holds the preprocessing to, with Pillow and numpy.

    pip install -r tests/reference/requirements.txt
    tests/reference/pillow_vectors.py                       # the committed ones, into tests/reference/pillow/
    tests/reference/pillow_vectors.py --photos DIR --output OUT   # every JPEG under DIR, for one comparison:
    SPOTTER_PILLOW_VECTORS=OUT cargo test --test preprocess -- --nocapture

Both sides start from identical RGB pixels: PNG files, or pictures that both compute (`synthetic`).
"""

import argparse
import json
from pathlib import Path

import numpy as np
from PIL import Image

HERE = Path(__file__).resolve().parent
PHOTOS = HERE.parent / "photos"
GREY = (128, 128, 128)

TORCHVISION = dict(resize=256, size=[224, 224], filter="bilinear")
KERAS = dict(resize="stretch", size=[224, 224], filter="bilinear")
KERAS_NEAREST = dict(resize="stretch", size=[224, 224], filter="nearest")
SMALL = dict(resize=36, size=[32, 32], filter="bilinear")
SMALL_STRETCH = dict(resize="stretch", size=[32, 32], filter="bilinear")
SMALL_NEAREST = dict(resize=36, size=[32, 32], filter="nearest")
OBLONG = dict(resize=52, size=[48, 20], filter="bilinear")

ROTATIONS = {0: None, 90: Image.Transpose.ROTATE_270, 180: Image.Transpose.ROTATE_180, 270: Image.Transpose.ROTATE_90}
FLIPS = {None: None, "horizontal": Image.Transpose.FLIP_LEFT_RIGHT, "vertical": Image.Transpose.FLIP_TOP_BOTTOM}
FILTERS = {"bilinear": Image.Resampling.BILINEAR, "nearest": Image.Resampling.NEAREST}


def synthetic(width, height):
    """Waves, edges and noise from integer arithmetic alone; the test computes the same."""
    x, y, c = np.meshgrid(np.arange(width), np.arange(height), np.arange(3), indexing="xy")
    x, y, c = (a.astype(np.uint64) for a in (x, y, c))
    h = (x * np.uint64(73856093)) ^ (y * np.uint64(19349663)) ^ (c * np.uint64(83492791))
    noise = (h * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(56)
    edges = np.where((x // np.uint64(7) + y // np.uint64(5)) % np.uint64(2) == 0, np.uint64(255), np.uint64(0))
    ramp = (x * np.uint64(3) + y * np.uint64(5) + c * np.uint64(40)) % np.uint64(256)
    which = (x // np.uint64(16) + y // np.uint64(16)) % np.uint64(3)
    return Image.fromarray(np.choose(which.astype(np.int64), [noise, edges, ramp]).astype(np.uint8))


def fnv1a(data):
    h = 0xCBF29CE484222325
    for byte in data:
        h = ((h ^ byte) * 0x100000001B3) & 0xFFFFFFFFFFFFFFFF
    return f"{h:016x}"


def see(image, spec, fit="crop", box=None, rotate=0, flip=None):
    """What the model sees: orientation, region, fit; the definition that the Rust side must meet."""
    for transpose in (ROTATIONS[rotate], FLIPS[flip]):
        if transpose is not None:
            image = image.transpose(transpose)
    if box:
        left, top, width, height = box
        image = image.crop((left, top, left + width, top + height))
    width, height = spec["size"]
    filter = FILTERS[spec["filter"]]
    if fit == "pad":
        scale = min(width / image.width, height / image.height)
        # Half up, which only differs from round() on exact halves.
        inner = [max(1, int(side * scale + 0.5)) for side in image.size]
        canvas = Image.new("RGB", (width, height), GREY)
        canvas.paste(image.resize(inner, filter), ((width - inner[0]) // 2, (height - inner[1]) // 2))
        return canvas
    if fit == "stretch" or spec["resize"] == "stretch":
        return image.resize((width, height), filter)
    # torchvision.transforms.Resize(int), then CenterCrop
    side = spec["resize"]
    short, long = sorted(image.size)
    other = int(side * long / short)
    image = image.resize((side, other) if image.width <= image.height else (other, side), filter)
    left, top = int(round((image.width - width) / 2.0)), int(round((image.height - height) / 2.0))
    return image.crop((left, top, left + width, top + height))


def values(picture, convention):
    """The float tensor, [3][height][width], as numpy programs make it."""
    pixels = np.asarray(picture).astype(np.float32)
    if convention == "torchvision":
        mean, std = np.float32([0.485, 0.456, 0.406]), np.float32([0.229, 0.224, 0.225])
        return ((pixels / np.float32(255) - mean) / std).transpose(2, 0, 1)
    return (pixels[:, :, ::-1] - np.float32([103.939, 116.779, 123.68])).transpose(2, 0, 1)


def samples(picture):
    """Some elements of both conventions' tensors: [convention, channel, row, column, value]."""
    rng = np.random.default_rng(7)
    picks = [(int(rng.integers(3)), int(rng.integers(picture.height)), int(rng.integers(picture.width))) for _ in range(6)]
    return [
        [name, c, y, x, float(values(picture, name)[c, y, x])] for name in ("torchvision", "keras-caffe") for c, y, x in picks
    ]


class Writer:
    def __init__(self, output):
        self.output, self.cases = output, []
        output.mkdir(parents=True, exist_ok=True)

    def image(self, name, image):
        image.save(self.output / name, optimize=True)
        return name

    def case(self, name, source, image, spec, whole=False, **options):
        picture = see(image, spec, **options)
        case = dict(name=name, input=source, spec=spec, **options)
        if whole:
            case["expected"] = self.image(f"{name}.png".replace(" ", "-"), picture)
        else:
            case["digest"] = fnv1a(picture.tobytes())
        if spec["size"] == [224, 224] and not whole:
            case["samples"] = samples(picture)
        self.cases.append(case)

    def close(self):
        lines = ",\n".join(json.dumps(case) for case in self.cases)
        (self.output / "vectors.json").write_text(f"[\n{lines}\n]\n")
        print(f"{len(self.cases)} cases in {self.output}")


def photo_crop(label, index, box):
    path = sorted((PHOTOS / label).glob("*.jpg"))[index]
    return Image.open(path).convert("RGB").crop((box[0], box[1], box[0] + box[2], box[1] + box[3]))


def committed(output):
    writer = Writer(output)
    crops = {
        "wide": photo_crop("sunflower", 0, (40, 30, 150, 64)),
        "tall": photo_crop("cup", 0, (30, 20, 61, 131)),
        "square": photo_crop("wild_cat", 0, (60, 40, 96, 96)),
        "odd": photo_crop("Faces", 0, (101, 57, 77, 83)),
        "tiny": photo_crop("stop_sign", 0, (50, 50, 19, 13)),
    }
    for name, crop in crops.items():
        source = writer.image(f"{name}.png", crop)
        for label, spec in [("crop", SMALL), ("stretch", SMALL_STRETCH), ("nearest", SMALL_NEAREST), ("oblong", OBLONG)]:
            writer.case(f"{name} {label}", source, crop, spec, whole=True)
        for label, spec in [("torchvision", TORCHVISION), ("keras", KERAS), ("keras nearest", KERAS_NEAREST)]:
            writer.case(f"{name} {label}", source, crop, spec)
    for fit in ("crop", "pad", "stretch"):
        for rotate in ROTATIONS:
            for flip in FLIPS:
                options = dict(fit=fit, rotate=rotate, flip=flip, box=[5, 7, 41, 30] if rotate % 180 == 0 else [7, 5, 30, 41])
                writer.case(f"odd {fit} {rotate} {flip}", "odd.png", crops["odd"], OBLONG, **options)
    sizes = [(1280, 720), (720, 1280), (640, 480), (301, 199), (199, 301), (333, 777), (256, 256), (224, 224), (225, 223)]
    sizes += [(257, 300), (258, 300), (259, 300), (1, 1), (1, 97), (97, 1), (2, 3), (1023, 17), (2000, 31)]
    for width, height in sizes:
        image, source = synthetic(width, height), [width, height]
        for label, spec in [("torchvision", TORCHVISION), ("keras", KERAS), ("keras nearest", KERAS_NEAREST)]:
            writer.case(f"{width}x{height} {label}", source, image, spec)
        writer.case(f"{width}x{height} pad", source, image, TORCHVISION, fit="pad")
    image = synthetic(1280, 720)
    writer.case("1280x720 region", [1280, 720], image, TORCHVISION, box=[401, 33, 300, 511])
    writer.case("1280x720 region rotated", [1280, 720], image, TORCHVISION, box=[101, 233, 300, 511], rotate=90)
    writer.close()


def photos(folder, output):
    writer = Writer(output)
    for i, path in enumerate(sorted(folder.rglob("*.jpg"))):
        image = Image.open(path).convert("RGB")
        source = writer.image(f"{i}.png", image)
        for label, spec in [("torchvision", TORCHVISION), ("keras", KERAS), ("keras nearest", KERAS_NEAREST)]:
            writer.case(f"{i} {label}", source, image, spec, whole=True)
    writer.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path, help="compare on every JPEG under this folder")
    parser.add_argument("--output", type=Path, default=HERE / "pillow")
    arguments = parser.parse_args()
    if arguments.photos:
        photos(arguments.photos, arguments.output)
    else:
        committed(arguments.output)
