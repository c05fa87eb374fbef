#!/usr/bin/env bash
# make test-arm: the library's kernel and model tests on emulated 64-bit Arm cores.
#
# The test binary is built once, by the toolchain, profile and target folder of `make cross`, and run under qemu-user as each
# core of CORES. A core decides which kernels exist: cortex-a53 and cortex-a72 have NEON only (Pi 3, Pi 4, Jetson Nano),
# cortex-a76 also the dot product (Pi 5, and like Orin's A78AE), neoverse-v1 also the 8-bit matrix product.
# From nothing about 12 minutes on two cores.
#
#   cross/test-arm.sh [FILTER...]      default: kernels:: model::
#   CORES="cortex-a72" cross/test-arm.sh kernels::aarch64
. "$(dirname "$0")/common.sh"

CORES=${CORES:-cortex-a72 cortex-a76 neoverse-v1}
(($#)) || set -- kernels:: model::

need_toolchain
need_emulator
say "building the tests for $TARGET"
build() { (cd "$ROOT" && cargo-zigbuild test --release --locked --lib --no-run --target "$TARGET.$GLIBC" "$@"); }
build
# Cargo names the file with a hash; asked again, now that it is built, it tells at once.
tests=$(build --message-format=json 2>/dev/null | grep -o '"executable":"[^"]*"' | cut -d'"' -f4 | tail -1)
[[ -x $tests ]] || die "cargo did not say where the tests are"

rows=() failed=0
for core in $CORES; do
    say "tests on $core: $*"
    log=$TARGET_DIR/$TARGET/test-$core.log
    start=$SECONDS
    status=0
    (cd "$ROOT" && QEMU_CPU=$core nice "$QEMU" -L /usr/aarch64-linux-gnu "$tests" "$@" 2>&1 | tee "$log") || status=$?
    result=$(grep '^test result:' "$log" | tail -1 || true)
    passed=$(sed -n 's/.* \([0-9]*\) passed.*/\1/p' <<<"$result")
    broken=$(sed -n 's/.* \([0-9]*\) failed.*/\1/p' <<<"$result")
    rows+=("$(printf '%-14s %8s %8s %8s' "$core" "${passed:-0}" "${broken:-all}" $((SECONDS - start)))")
    ((status == 0 && ${passed:-0} > 0)) || failed=1
done

printf '\n%-14s %8s %8s %8s\n' core passed failed seconds
printf '%s\n' "${rows[@]}"
((failed == 0)) || die "see $TARGET_DIR/$TARGET/test-CORE.log"
