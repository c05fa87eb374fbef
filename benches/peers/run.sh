#!/usr/bin/env bash
# make bench-peers: the full int8 VGG16 (seeded weights) on Spotter, OpenVINO, LiteRT, onnxruntime and ncnn, in turns, as ratios. The models
# (554 MB) and the Python environment are made once, under the target folder.
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
target=${CARGO_TARGET_DIR:-$root/target}
python=$target/peers/venv/bin/python
"$root/cross/packages.sh" peers
cargo build --release --manifest-path "$root/Cargo.toml"
if ! "$python" -c 'import openvino, onnxruntime, onnx, ncnn, ai_edge_litert, flatbuffers' 2>/dev/null; then
    python3 -m venv "$target/peers/venv"
    "$target/peers/venv/bin/pip" install --quiet -r "$root/benches/peers/requirements.txt"
fi
for form in full ncnn litert; do "$python" "$root/benches/peers/${form}_vgg16.py" "$target/peers"; done
exec "$python" "$root/benches/peers/peers.py" --spotter "$target/release/spotter" --models "$target/peers" "$@"
