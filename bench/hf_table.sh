#!/bin/sh
# Measures a Hugging Face T5 encoder attached to attnd beside itself and CTranslate2; writes bench/results/hf.json, the
# table of docs/transformers.md and its curve. Needs the built target attnd, and the Python that bench/setup_peers.sh
# makes: build/peers/bin/python, or $PYTHON. Takes about four minutes on a machine that does nothing else. Options:
# bench/hf_table.sh --help.
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
# shellcheck source=bench/python.sh
. "$root/bench/python.sh"
PYTHONPATH=$root/client/python/src:$root/bench/peers exec "$python" -B "$root/bench/hf_bench.py" "$@"
