# shellcheck shell=sh
# Sourced by the scripts here with $root set: $python, the interpreter that bench/setup_peers.sh makes, or $PYTHON.
python=${PYTHON:-$root/build/peers/bin/python}
if ! command -v "$python" >/dev/null; then
  echo "error: no $python; bench/setup_peers.sh makes it, or set PYTHON" >&2
  exit 1
fi
