#!/usr/bin/env bash
# make miri: the scalar kernels, the thread pool and the memory behind them under Miri, which interprets the program and ends it at the
# first undefined behaviour: a read outside of its allocation, a data race, an invalid alias.
#
#   cross/miri.sh [FILTER...]
#
# Miri comes with a nightly toolchain alone, which this installs beside the others. It knows no vector instructions: what it sees is
# `generic`, and what every kernel shares.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
cross/packages.sh build
cargo +nightly miri --version 2> /dev/null || rustup toolchain install nightly --profile minimal --component miri,rust-src
(($#)) || set -- kernels::tests::generic_computes_the_definition kernels::tests::pooling_follows_its_definition \
    kernels::pool:: kernels::scratch:: kernels::packed::
# The time and the environment are the host's.
MIRIFLAGS=-Zmiri-disable-isolation cargo +nightly miri test --lib -- "$@"
