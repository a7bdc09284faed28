#!/usr/bin/env bash
# Runs the tests of attnd.transformers with several versions of transformers, in virtual environments under build/. Needs the
# network the first time, and some gigabytes (PIP_EXTRA_INDEX_URL may name PyTorch's wheels for CPUs, which are smaller).
#   scripts/python_transformers.sh [VERSION...]     of transformers, such as 5.15 or newest; default: these two
# ATTND_BINARY is the server; by default the script builds build/server/attnd. ATTND_TRAINED_T5 may name the folder of a
# trained T5 checkpoint, which is then tested too, and used to run the example notebook. PYTHON is the interpreter; the newest
# transformers needs 3.11 or newer.
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "$0")/lib.sh"
[ -z "${ATTND_TRAINED_T5:-}" ] || ATTND_TRAINED_T5=$(realpath -- "$ATTND_TRAINED_T5")
cd "$root"

[ $# -gt 0 ] || set -- 5.15 newest
case " $* " in *' -'*) sed -n '2,7p' "$0" >&2; exit 2 ;; esac
logs=$root/build/logs
mkdir -p "$logs"
if [ -z "${ATTND_BINARY:-}" ]; then
  build_attnd release "$root/build" attnd
  ATTND_BINARY=$root/build/server/attnd
fi
export ATTND_BINARY

# run_tests VERSION  Runs the tests; the log's last line has their result.
run_tests() {
  local requirements=$logs/transformers-$1.txt wanted="transformers==$1.*" venv status=0
  [ "$1" != newest ] || wanted=transformers
  printf '%s\n' "$wanted" torch numpy grpcio protobuf pytest pytest-timeout ipykernel nbclient nbformat >"$requirements"
  venv=$(python_venv "transformers-$1" "$requirements")
  "$venv/bin/python" -W ignore -c '
import platform, torch, transformers
print("versions: |", platform.python_version(), "|", torch.__version__, "|", transformers.__version__)'
  if [ -n "${ATTND_TRAINED_T5:-}" ]; then
    PYTHONPATH=$root/client/python/src "$venv/bin/python" -B examples/python/execute.py examples/python/summarise.ipynb || status=1
  fi
  cd client/python
  "$venv/bin/python" -B -m pytest -q -p no:cacheprovider --timeout=600 --show-capture=no \
    tests/hugging_face tests/test_transformers_missing.py || status=1
  return "$status"
}

failed=0
for version in "$@"; do
  (step "Tests with transformers $version" "$logs/python-transformers-$version.log" run_tests "$version") || failed=1
done
printf '\n| Python | torch | transformers | tests |\n|---|---|---|---|\n'
for version in "$@"; do
  log=$logs/python-transformers-$version.log
  printf '%s | %s |\n' "$(sed -n 's/^versions: //p' "$log")" \
    "$(grep -E '^[0-9]+ (passed|failed|error)|^no tests|^error|^ERROR' "$log" | tail -n 1 | tr -d '|')"
done
exit "$failed"
