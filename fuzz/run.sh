#!/usr/bin/env bash
# Every fuzz target, one after another; a table at the end, and an exit status by it.
#
#   fuzz/run.sh SECONDS [TARGET...]   each target for so long
#
# The project's own toolchain serves, told to take a nightly's options (RUSTC_BOOTSTRAP): its library has the address sanitizer too.
# What is found lies in fuzz/artifacts/TARGET afterwards; `cargo fuzz run TARGET FILE` shows it again. What is new in the
# corpus stays in fuzz/corpus, which git ignores. Kept are the seeds and, once mended, each finding in fuzz/regressions/TARGET:
# `cargo test --release fuzzing` feeds both to the same functions on a stable toolchain.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 1

# A megabyte is larger than any message, configuration or request that is read; pictures of that size only cost time.
readonly LARGEST=65536
# Far above what an input of that size may need: a graph, a picture of 1 MP, the fuzzer's own corpus. One allocation half of it.
readonly MEMORY=2048 ALLOCATION=1024
readonly SLOWEST=20

say() { printf 'fuzz: %s\n' "$*" >&2; }

tools() {
    cargo fuzz --version > /dev/null 2>&1 || {
        say "installing cargo-fuzz"
        cargo install --quiet --locked cargo-fuzz || exit 1
    }
    export RUSTC_BOOTSTRAP=1
}

# Words of the configuration, out of its reference; of HTTP, and of the operators that are rewritten.
dictionary() { # TARGET
    case $1 in
        config) grep -o '^| `[a-z_]*`' config/REFERENCE.md | tr -d '|` ' ;;
        manifest) printf '%s\n' input output source size preprocess torchvision keras-caffe keras-tf resize crop order mean std scale filter kind labels ;;
        http) printf '%s\n' 'Transfer-Encoding: chunked' 'Content-Length: ' 'Expect: 100-continue' 'Connection: ' 'Cookie: spotter=' '/api/' ;;
        onnx) printf '%s\n' QLinearConv QLinearMatMul QLinearAdd QuantizeLinear DequantizeLinear MaxPool AveragePool Concat Reshape ;;
    esac | sort -u | sed 's/.*/"&"/'
}

beginning() { # TARGET: the first corpus
    mkdir -p "fuzz/corpus/$1"
    cp -n fuzz/seeds/"$1"/* fuzz/regressions/"$1"/* "fuzz/corpus/$1/" 2> /dev/null
    case $1 in
        config) cp -n config/*.toml "fuzz/corpus/$1/" ;;
        manifest) cp -n models/*.toml "fuzz/corpus/$1/" ;;
        onnx) cp -n tests/models/*.onnx "fuzz/corpus/$1/" ;;
    esac
}

run() { # TARGET
    local log="fuzz/artifacts/$1.log" words="fuzz/artifacts/$1.dictionary" status=0
    mkdir -p fuzz/artifacts
    beginning "$1"
    dictionary "$1" > "$words"
    # An empty one is refused.
    [ -s "$words" ] || words=
    say "$1 for $seconds s"
    cargo fuzz run "$1" -- -max_total_time="$seconds" -max_len=$LARGEST -timeout=$SLOWEST -rss_limit_mb=$MEMORY \
        -malloc_limit_mb=$ALLOCATION ${words:+"-dict=$words"} -print_final_stats=1 > "$log" 2>&1 || status=$?
    row "$1" "$log" $status
    [ $status = 0 ] || { tail -40 "$log" >&2; return 1; }
}

row() { # TARGET LOG STATUS
    local executions coverage verdict="no crash"
    executions=$(sed -n 's/^stat::number_of_executed_units: *//p' "$2")
    coverage=$(grep -o 'cov: [0-9]*' "$2" | tail -1 | tr -dc 0-9)
    [ "$3" = 0 ] || verdict="FAILED: $(grep -m 1 -oE 'panicked at .*|out-of-memory.*|timeout after.*|AddressSanitizer.*' "$2" | cut -c -60)"
    table+=("$(printf '%-10s %12s %10s   %s' "$1" "${executions:-?}" "${coverage:-?}" "$verdict")")
}

table=() failed=0
seconds=${1:?"how many seconds a target?"}
shift
[[ $seconds =~ ^[1-9][0-9]*$ ]] || { say "no number of seconds: $seconds"; exit 2; }
tools
targets=("$@")
[ $# -gt 0 ] || mapfile -t targets < <(sed -n 's/^name = "\([a-z]*\)"$/\1/p' fuzz/Cargo.toml | sort)
say "building ${#targets[@]} targets with the address sanitizer"
cargo fuzz build > /dev/null 2> fuzz/build.log || { tail -30 fuzz/build.log >&2; exit 1; }
for target in "${targets[@]}"; do run "$target" || failed=$((failed + 1)); done
printf '\n%-10s %12s %10s   %s\n' target inputs coverage 'result'
printf '%s\n' "${table[@]}"
[ "$failed" = 0 ]
