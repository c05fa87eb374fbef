#!/usr/bin/env bash
# `make test-web`: the tests of the page in Chromium. axe-core is kept under the cargo target.
# SPOTTER_SCREENSHOTS=docs makes the pictures of the README anew.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

target=${CARGO_TARGET_DIR:-$PWD/target}
axe=$target/web/node_modules/axe-core/axe.min.js
mkdir -p "$target/web"
[ -f "$axe" ] || npm install --silent --no-save --no-audit --no-fund --prefix "$target/web" axe-core@4
SPOTTER_AXE=$axe cargo test --release --test page -- --include-ignored --test-threads 1
