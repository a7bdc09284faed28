#!/bin/sh
# Measures the Python client beside the C++ client; writes bench/results/python.json and the Python table in
# docs/performance.md. Needs the built targets attnd and attnd_call_loop, and the Python that bench/setup_peers.sh makes:
# build/peers/bin/python, or $PYTHON, which needs numpy, grpcio and torch (without torch its rows are "not measured").
# Takes about two minutes on a machine that does nothing else. Options: bench/python_table.sh --help.
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
# shellcheck source=bench/python.sh
. "$root/bench/python.sh"
PYTHONPATH=$root/client/python/src:$root/bench/peers exec "$python" -B "$root/bench/python_bench.py" "$@"
