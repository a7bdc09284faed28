#!/bin/sh
# Runs the tests of bench/peers with a Python that has numpy; exits with 77, which ctest shows as skipped, if there is none.
#   peers_test.sh FOLDER PYTHON...     FOLDER: bench/peers; PYTHON: the first that has numpy is used
set -eu
folder=$1
shift
cd "$folder"
for python in "$@"; do
  if "$python" -c 'import sys, numpy; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
    exec "$python" -B -m unittest -v contest_test formula_test pages_test wire_test
  fi
done
echo "skipped: no Python 3.11 with numpy among: $*"
exit 77
