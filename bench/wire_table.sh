#!/bin/sh
# Measures calls to attnd beside its peers; writes bench/results/wire.json and the wire's tables in docs/performance.md.
# Needs the built targets attnd, attnd_bench and attnd_server_race, and the Python that bench/setup_peers.sh makes:
# build/peers/bin/python, or $PYTHON. Takes about two minutes on a machine that does nothing else.
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
python=${PYTHON:-$root/build/peers/bin/python}
if ! command -v "$python" >/dev/null; then
  echo "error: no $python; bench/setup_peers.sh makes it, or set PYTHON" >&2
  exit 1
fi
exec "$python" "$root/bench/peers/wire_table.py" "$@"
