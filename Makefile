# Every routine of the project. Each target installs what it needs (cross/packages.sh), says what it does, and exits by the result.
# CARGO_TARGET_DIR is honoured throughout.

.DEFAULT_GOAL := help
.PHONY: help demo test test-arm test-web fleet cross deb test-board test-board-all test-pi bench-arm bench-peers motion soak test-homeassistant fuzz miri lint

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

N ?= 50
fleet: ## N=50 daemons at one broker that dies and comes back: connections a second, events lost, retained states, memory
	@cross/packages.sh demo
	SPOTTER_FLEET=$(N) cargo test --release --test fleet -- --ignored --nocapture a_fleet

test-homeassistant: ## what Home Assistant finds, against its own schemas (its package from PyPI, in an environment of its own)
	@cross/packages.sh homeassistant
	tests/actions_mqtt/home_assistant.sh

test-arm: ## the library's tests as aarch64 programs on three emulated cores
	cross/test-arm.sh

cross: ## an aarch64 binary: target/aarch64-unknown-linux-gnu/dist/spotter
	cross/build.sh

deb: ## the Debian package for the boards: target/deb/spotter_VERSION_arm64.deb
	packaging/deb.sh

test-board: ## the package on an emulated arm64 board with a camera, GPIO, systemd and a broker: the scenarios that the gate runs
	tests/board/run.sh

test-board-all: ## every scenario of tests/board, thoroughly, as a cortex-a72 and as a cortex-a76: some hours
	tests/board/run.sh --all

test-pi: ## the rppal backend on an emulated Raspberry Pi 3B: levels read back from its registers, also after a panic and a SIGKILL
	tests/pi/run.sh

bench-arm: ## instructions that a whole VGG16 executes on emulated ARM cores, and a model of the inner loops
	cross/count.sh

bench-peers: ## the full int8 VGG16 beside OpenVINO, LiteRT, onnxruntime and ncnn, in turns, as ratios
	benches/peers/run.sh

motion: ## the motion gate on a fixed camera's recording: frames classified, events lost or late, false alarms; and its cost a frame
	@cross/packages.sh motion
	cargo build --release
	tests/motion/run.sh
	cargo bench --bench motion

SECONDS ?= 60
fuzz: ## SECONDS=60 for each fuzz target: configuration, manifest, JPEG, raw frames, ONNX, MQTT, HTTP; crashes, hangs, memory
	@cross/packages.sh fuzz
	fuzz/run.sh $(SECONDS)

MINUTES ?= 60
soak: ## the daemon for MINUTES=60 while its broker is killed and a camera pulled: memory, threads, descriptors, latency; drawn in target/soak/soak.png
	@cross/packages.sh test
	cargo build --release --bin spotter --example soak
	$${CARGO_TARGET_DIR:-target}/release/examples/soak --minutes $(MINUTES) --output $${CARGO_TARGET_DIR:-target}/soak

miri: ## the scalar kernels, the thread pool and their memory under Miri (installs a nightly toolchain beside yours)
	cross/miri.sh

lint: ## formatting and clippy, as the gate wants them
	@cross/packages.sh build
	cargo fmt --check
	cargo clippy --all-targets -- -D warnings
