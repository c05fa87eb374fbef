#!/usr/bin/env bash
# make bench-peers: the full int8 VGG16 (seeded weights) on Spotter, OpenVINO and onnxruntime, in turns, as ratios. The models (277 MB) and the
# Python environment are made once, under the target folder. LiteRT and ncnn are not in it: neither reads ONNX.
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
target=${CARGO_TARGET_DIR:-$root/target}
python=$target/peers/venv/bin/python
"$root/cross/packages.sh" peers
cargo build --release --manifest-path "$root/Cargo.toml"
if ! "$python" -c 'import openvino, onnxruntime, onnx' 2>/dev/null; then
    python3 -m venv "$target/peers/venv"
    "$target/peers/venv/bin/pip" install --quiet -r "$root/benches/peers/requirements.txt"
fi
"$python" "$root/benches/peers/full_vgg16.py" "$target/peers"
exec "$python" "$root/benches/peers/peers.py" --spotter "$target/release/spotter" --models "$target/peers" "$@"
