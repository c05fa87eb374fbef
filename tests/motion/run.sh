#!/usr/bin/env bash
# The motion gate on a fixed camera's recording: OpenCV's pedestrians, twice over, with photos that the model knows coming and going on the
# lawn. Replayed with and without the gate on one clock, so that the two are compared frame by frame.
set -euo pipefail
cd "$(dirname "$0")/../.."

folder=${CARGO_TARGET_DIR:-target}/motion
binary=${CARGO_TARGET_DIR:-target}/release/spotter
video=/usr/share/doc/opencv-doc/examples/data/vtest.avi
begin=1700000000000 # the first frame's name, in milliseconds since 1970; the recording has ten frames a second

record() {
    echo "making the recording in $folder/frames (some 150 MB)"
    rm -rf "$folder/frames" "$folder/raw"
    mkdir -p "$folder/raw"
    mapfile -t laid < <(python3 tests/motion/scene.py filter tests/photos)
    ffmpeg -v error -nostdin -stream_loop 1 -i "$video" "${laid[@]}" -q:v 2 -start_number 0 "$folder/raw/%06d.jpg"
    local frame
    for frame in "$folder"/raw/*.jpg; do
        local number=${frame##*/}
        mv "$frame" "$folder/raw/$((begin + 100 * 10#${number%.jpg})).jpg"
    done
    # Whole or not there.
    cp tests/motion/scene.py "$folder/raw/scene.py"
    mv "$folder/raw" "$folder/frames"
}

replay() { # $1: name, $2: the camera's motion
    sed "s|^#motion|$2|; s|@MODEL@|$PWD/models/vgg16-gap-caltech101.onnx|" tests/motion/scene.toml > "$folder/$1.toml"
    echo "replaying: $1"
    "$binary" replay --config "$folder/$1.toml" --frames "$folder/frames" --format json > "$folder/$1.json"
}

mkdir -p "$folder"
cmp -s tests/motion/scene.py "$folder/frames/scene.py" || record
replay always ""
# A person at the lawn's edge is less than 2 % of it; ten frames a second need no two seconds for two hits.
replay gated 'motion = { area = 0.02, linger = "500ms" }'
python3 tests/motion/scene.py truth > "$folder/truth.json"
python3 tests/motion/report.py "$folder/always.json" "$folder/gated.json" "$folder/truth.json"
