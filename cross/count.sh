#!/usr/bin/env bash
# make bench-arm: executed aarch64 instructions of a whole VGG16 inference, one thread, on each emulated core; and the inner loops under llvm-mca.
#
#   cross/count.sh                       the table; fails where an instruction count is above its bar or an inner loop below 90 % of its pipes' limit
#   cross/count.sh run BINARY ARGS...    the same counting for any aarch64 program that writes a line between its parts; CORE names the core
#   cross/count.sh emulator              only builds the emulator
#
# Debian's qemu-user is static and takes no plugins, so one that does is built once from Debian's source: about 3 minutes of processor time.
# Counts are repeatable to the instruction: no address randomisation, a fixed random seed, an empty environment, one thread.
. "$(dirname "$0")/common.sh"

MESON=1.5.0
COUNTING=$CACHE/qemu-plugin

need_counting_emulator() {
    "$CROSS/packages.sh" count
    if [[ ! -x $COUNTING/qemu-aarch64 ]]; then
        local build
        build=$(mktemp -d -p "$CACHE")
        say "building an emulator that takes plugins"
        mkdir "$build/src" "$build/out"
        (cd "$build" && private_apt quietly apt-get source -qq --download-only qemu/trixie)
        tar -x -C "$build/src" --strip-components=1 -f "$build"/qemu_*.orig.tar.xz
        # Debian left the firmware blobs out of its source; a user-mode emulator needs none.
        echo 'roms = []' >"$build/src/pc-bios/meson.build"
        need_python qemu-meson "meson==$MESON" pycotap distlib setuptools wheel
        (cd "$build/out" && quietly ../src/configure --target-list=aarch64-linux-user --without-default-features --enable-tcg \
            --enable-linux-user --enable-plugins --disable-docs --disable-werror --python="$CACHE/qemu-meson/bin/python3")
        quietly nice ninja -C "$build/out" qemu-aarch64
        mkdir -p "$COUNTING"
        strip -o "$COUNTING/qemu-aarch64.part" "$build/out/qemu-aarch64"
        mv "$COUNTING/qemu-aarch64.part" "$COUNTING/qemu-aarch64"
        rm -rf "$build"
    fi
    if [[ $CROSS/count/opcount.c -nt $COUNTING/opcount.so ]]; then
        quietly gcc -O2 -Wall -Wextra -shared -fPIC -o "$COUNTING/opcount.so" "$CROSS/count/opcount.c"
    fi
}

# count CORE OUTPUT BINARY ARGS...
count() {
    local core=$1 out=$2
    shift 2
    setarch -R env -i "$COUNTING/qemu-aarch64" -cpu "$core" -seed 1 -L /usr/aarch64-linux-gnu -plugin "$COUNTING/opcount.so,out=$out" "$@"
}

# One row of the table: core, kernel, instructions of the last inference, of these multiplying; and a digest, which must be the same everywhere.
row() {
    local core=$1 kernel=$2 pattern=$3 bar=$4 out log
    out=$WORK/$kernel.counts
    log=$WORK/$kernel.log
    count "$core" "$out" "$PROGRAM" "$kernel" 1 2 >"$log"
    python3 "$CROSS/count/classes.py" "$out" 1 2 >"$WORK/$kernel.classes"
    local total products
    total=$(awk '/^total/ { printf "%.3f", $2 / 1000 }' "$WORK/$kernel.classes")
    products=$(awk -v pattern="$pattern" '$0 ~ "^(" pattern ")  " { for (i = 1; i < NF; i++) if ($(i + 1) == "M") sum += $i } END { printf "%.3f", sum / 1000 }' "$WORK/$kernel.classes")
    digests+=("$(awk '/digest/ { d = $NF } END { print d }' "$log")")
    printf '%-12s %-8s %8s G %8s G %6s G\n' "$core" "$kernel" "$total" "$products" "$bar"
    awk -v total="$total" -v bar="$bar" 'BEGIN { exit !(total <= bar) }' || failed=1
}

# Inner loop of KIND in llvm-mca's model of CORE: cycles a turn, against those that its pipes need for the multiplications alone.
model() {
    local kind=$1 core=$2 rate=$3 features=$4 least=$5 found file number
    while read -r found number file; do
        [[ $found == "$kind" ]] || continue
        local cycles
        cycles=$("$MCA" -mtriple=aarch64 -mcpu="$core" -mattr="$features" -iterations=200 "$file" | awk '/^Total Cycles/ { printf "%.2f", $3 / 200 }')
        awk -v kind="$kind" -v core="$core" -v n="$number" -v rate="$rate" -v cycles="$cycles" -v least="$least" 'BEGIN {
            share = n / rate / cycles
            printf "%-8s %-12s %4d in %8.2f cycles, %d a cycle at most: %5.1f %% of the limit\n", kind, core, n, cycles, rate, 100 * share
            exit share < least }' || failed=1
    done <"$WORK/loops"
}

table() {
    need_toolchain
    need_counting_emulator
    MCA=$(command -v llvm-mca-19 || command -v llvm-mca)
    say "building examples/vgg16 for $TARGET"
    (cd "$ROOT" && quietly cargo-zigbuild zigbuild --profile dist --locked --example vgg16 --target "$TARGET.$GLIBC")
    PROGRAM=$TARGET_DIR/$TARGET/dist/examples/vgg16
    WORK=$TARGET_DIR/$TARGET/count
    mkdir -p "$WORK"
    failed=0 digests=()

    echo "VGG16, one thread, the second inference: executed instructions, counted under emulation"
    printf '%-12s %-8s %10s %10s %8s\n' core kernel executed multiply bar
    row cortex-a72 neon 'widening product' 1.34
    row cortex-a76 dotprod 'dot product' 1.20
    row neoverse-v1 i8mm 'matrix product|dot product' 0.75
    if (($(printf '%s\n' "${digests[@]}" | sort -u | wc -l) != 1)); then
        failed=1
        say "the kernels' scores differ: ${digests[*]}"
    fi

    printf '\nInner loops in llvm-mca: modelled, with loads that hit the L1 cache\n'
    python3 "$CROSS/count/loops.py" "$PROGRAM" "$WORK" >"$WORK/loops"
    model smlal cortex-a72 1 +neon 0.90
    model sdot neoverse-n1 2 +dotprod 0.90
    model usmmla neoverse-v1 4 +i8mm 0.90
    # In-order cores: what is lost is the loads, which do not run beside the multiplications in these models.
    model smlal cortex-a53 1 +neon 0
    model sdot cortex-a55 1 +dotprod 0
    printf '\nBy class of instruction: %s/KERNEL.classes\n' "$WORK"
    ((failed == 0)) || die "a bar is missed"
}

case ${1:-} in
run)
    shift
    need_counting_emulator
    out=$(mktemp)
    count "${CORE:-cortex-a72}" "$out" "$@"
    cuts=$(grep -c '^cut' "$out")
    # The part before the last line that the program wrote.
    python3 "$CROSS/count/classes.py" "$out" $((cuts > 2 ? cuts - 3 : 0)) $((cuts > 2 ? cuts - 2 : cuts - 1))
    rm -f "$out"
    ;;
emulator) need_counting_emulator ;;
'') table ;;
*) die "unknown: $1; see the head of $0" ;;
esac
