# Every routine of the project. Each target installs what it needs (cross/packages.sh), says what it does, and exits by the result.
# CARGO_TARGET_DIR is honoured throughout.

.DEFAULT_GOAL := help
.PHONY: help demo test test-arm test-web cross deb test-board test-board-all bench-arm bench-peers lint

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## /\1|/p' Makefile | awk -F'|' '{ printf "make %-14s %s\n", $$1, $$2 }'

demo: ## photos in, the shipped VGG16, two rules, a simulated pin and a broker of its own; ends by itself with a summary
	@cross/packages.sh demo
	cargo build --release
	tests/demo/demo.sh

test: ## every test that needs no emulated board (the release profile: demo, tests and benchmarks share one build)
	@cross/packages.sh test
	cargo test --release

test-web: ## the page in a real browser (Debian's Chromium), and through an accessibility checker (axe-core, from npm)
	@cross/packages.sh web
	tests/page/browser.sh

test-arm: ## the library's tests as aarch64 programs on three emulated cores
	cross/test-arm.sh

cross: ## an aarch64 binary: target/aarch64-unknown-linux-gnu/dist/spotter
	cross/build.sh

deb: ## Debian packages for boards and PCs: target/deb/spotter_VERSION_{arm64,amd64}.deb
	packaging/deb.sh

test-board: ## the package on an emulated arm64 board with a camera, GPIO, systemd and a broker: what the gate runs of the scenarios
	tests/board/run.sh

test-board-all: ## every scenario, thoroughly, on a cortex-a72 and a cortex-a76
	tests/board/run.sh --all

bench-arm: ## instructions that a whole VGG16 executes on emulated ARM cores, and a model of the inner loops
	cross/count.sh

bench-peers: ## the full int8 VGG16 beside OpenVINO and onnxruntime, in turns, as ratios
	benches/peers/run.sh

lint: ## formatting and clippy, as the gate wants them
	@cross/packages.sh build
	cargo fmt --check
	cargo clippy --all-targets -- -D warnings
