#!/bin/sh
# Measures the kernel beside its peers; writes bench/results/kernel.json and the kernel's table in docs/performance.md.
# Needs a built attnd_bench, and the Python that bench/setup_peers.sh makes: build/peers/bin/python, or $PYTHON.
# Takes about ten minutes on a machine that does nothing else. Options: bench/kernel_table.sh --help.
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
# shellcheck source=bench/python.sh
. "$root/bench/python.sh"
exec "$python" "$root/bench/peers/kernel_table.py" "$@"
