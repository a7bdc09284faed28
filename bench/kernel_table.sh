#!/bin/sh
# Measures the kernel beside its peers; writes bench/results/kernel.json and the kernel's table in docs/performance.md.
# Needs a built attnd_bench, and the Python that bench/setup_peers.sh makes: build/peers/bin/python, or $PYTHON.
# Takes about ten minutes on a machine that does nothing else. Options: bench/kernel_table.sh --help.
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
python=${PYTHON:-$root/build/peers/bin/python}
if ! command -v "$python" >/dev/null; then
  echo "error: no $python; bench/setup_peers.sh makes it, or set PYTHON" >&2
  exit 1
fi
exec "$python" "$root/bench/peers/kernel_table.py" "$@"
