#!/bin/sh
# Measures calls to attnd beside its peers; writes bench/results/wire.json and the wire's tables in docs/performance.md.
# Needs the built targets attnd, attnd_bench and attnd_server_race, and the Python that bench/setup_peers.sh makes:
# build/peers/bin/python, or $PYTHON. Takes about two minutes on a machine that does nothing else.
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
# shellcheck source=bench/python.sh
. "$root/bench/python.sh"
exec "$python" "$root/bench/peers/wire_table.py" "$@"
