#!/bin/sh
# Measures a Hugging Face T5 whose attention attnd computes, the same T5 without attnd, and CTranslate2. Writes the
# results into docs/transformers.md. Run it on a machine that does nothing else:
#   bench/hf_table.sh              its encoder: the table, its curve and bench/results/hf.json; about four minutes
#   bench/hf_table.sh --generate   generate(): the table and bench/results/hf_generate.json; a quarter of an hour
# Needs the built target attnd, and the Python that bench/setup_peers.sh makes (build/peers/bin/python), or another one
# in $PYTHON. Further options: bench/hf_table.sh [--generate] --help.
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
# shellcheck source=bench/python.sh
. "$root/bench/python.sh"
script=hf_bench.py
if [ "${1:-}" = --generate ]; then
  script=hf_generate.py
  shift
fi
PYTHONPATH=$root/client/python/src:$root/bench/peers exec "$python" -B "$root/bench/$script" "$@"
