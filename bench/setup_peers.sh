#!/bin/sh
# Makes the Python that the benchmarks' peers run in: bench/setup_peers.sh [FOLDER], by default build/peers.
# Needs Python 3.11 or newer with venv (Debian: python3-venv) as python3, or $PYTHON; for ggml also CMake and a C++
# compiler. Without ggml its rows are "not measured". Takes some minutes, most of them for ggml.
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
folder=${1:-$root/build/peers}
[ -x "$folder/bin/python" ] || "${PYTHON:-python3}" -m venv "$folder"
"$folder/bin/pip" install --quiet -r "$root/bench/peers/requirements.txt"
log=$folder/ggml.log
# The part of llama.cpp that reads pictures is not needed.
CMAKE_ARGS="-DLLAVA_BUILD=OFF" "$folder/bin/pip" install -r "$root/bench/peers/requirements-ggml.txt" >"$log" 2>&1 ||
  echo "warning: ggml did not install, its rows will be \"not measured\"; see $log" >&2
