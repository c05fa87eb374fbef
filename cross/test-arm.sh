#!/usr/bin/env bash
# make test-arm: kernels, preprocessing and models on emulated 64-bit Arm cores, the whole int8 VGG16 on photos among them: every 8-bit
# tensor equal to onnxruntime's on x86, scores within 1e-4.
#
# The test binaries are built once, by the toolchain, profile and target folder of `make cross`, and run under qemu-user as each
# core of CORES. A core decides which kernels exist: cortex-a53 and cortex-a72 have NEON only (Pi 3, Pi 4, Jetson Nano),
# cortex-a76 also the dot product (Pi 5, and like Orin's A78AE), neoverse-v1 also the 8-bit matrix product.
# From nothing about 12 minutes on two cores.
#
#   cross/test-arm.sh [FILTER...]      default: kernels:: model:: preprocess:: of the library, and the tests of TESTS
#   CORES="cortex-a72" cross/test-arm.sh kernels::aarch64        the library's alone
. "$(dirname "$0")/common.sh"

CORES=${CORES:-cortex-a53 cortex-a72 cortex-a76 neoverse-v1}
# Seconds for one test binary on one core, some ten times what it takes: a test that hangs is a failure and not a stall.
LIMIT=1200
TESTS=(model_parity preprocess)
# The whole network by plain scalar code takes minutes in an emulator, and tract's own operators are not ours to check. What the other kernels
# give is compared with onnxruntime's bytes here, and `generic` with each kernel layer by layer.
SKIP=(every_kernel_gives_the_same_bytes tract_alone_comes_to_the_same_scores)

if (($#)); then
    filters=("$@") TESTS=()
else
    filters=(kernels:: model:: preprocess::)
fi

need_toolchain
need_emulator
say "building the tests for $TARGET"
build() {
    (cd "$ROOT" && cargo-zigbuild test --profile dist --locked --no-run --lib "${TESTS[@]/#/--test=}" --target "$TARGET.$GLIBC" "$@")
}
build
# Cargo names the files with hashes; asked again, now that they are built, it tells at once.
built=$(build --message-format=json 2>/dev/null)
binary_of() { # the test binary of target NAME
    grep "\"name\":\"$1\"" <<<"$built" | grep '"test":true' | grep -o '"executable":"[^"]*/deps/[^"]*"' | cut -d'"' -f4 | tail -1
}

rows=() failed=0
# run CORE NAME ARGS...: one test binary, and its row of the table
run() {
    local core=$1 name=$2 log=$TARGET_DIR/$TARGET/test-$1-$2.log binary start=$SECONDS status=0 result passed broken
    shift 2
    binary=$(binary_of "$name")
    [[ -x $binary ]] || die "cargo did not say where the tests of $name are"
    say "$name on $core: $*"
    (cd "$ROOT" && QEMU_CPU=$core nice timeout --kill-after=10 "$LIMIT" "$QEMU" -L /usr/aarch64-linux-gnu "$binary" "$@" 2>&1 | tee "$log") || status=$?
    result=$(grep '^test result:' "$log" | tail -1 || true)
    passed=$(sed -n 's/.* \([0-9]*\) passed.*/\1/p' <<<"$result")
    broken=$(sed -n 's/.* \([0-9]*\) failed.*/\1/p' <<<"$result")
    rows+=("$(printf '%-14s %-14s %8s %8s %8s' "$core" "$name" "${passed:-0}" "${broken:-all}" $((SECONDS - start)))")
    ((status == 0 && ${passed:-0} > 0)) || failed=1
}

for core in $CORES; do
    run "$core" spotter "${filters[@]}"
    for test in "${TESTS[@]}"; do
        run "$core" "$test" "${SKIP[@]/#/--skip=}"
    done
done

printf '\n%-14s %-14s %8s %8s %8s\n' core tests passed failed seconds
printf '%s\n' "${rows[@]}"
((failed == 0)) || die "see $TARGET_DIR/$TARGET/test-CORE-TESTS.log"
