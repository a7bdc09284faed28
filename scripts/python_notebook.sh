#!/usr/bin/env bash
# Executes examples/python/attend.ipynb against build/'s attnd (or ATTND_BINARY), in a virtual environment made from
# examples/python/requirements.txt, which needs the network the first time.
#   scripts/python_notebook.sh            fails if a cell fails or its text differs from the committed notebook
#   scripts/python_notebook.sh --write    writes the cells' output to the notebook
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "$0")/lib.sh"

case ${1:-} in '' | --write) ;; *) sed -n '2,5p' "$0" >&2; exit 2 ;; esac
cd "$root"
export ATTND_BINARY=${ATTND_BINARY:-$root/build/server/attnd}
[ -x "$ATTND_BINARY" ] || fail "no $ATTND_BINARY: scripts/test.sh builds it"
venv=$(python_venv python-notebook examples/python/requirements.txt)
PYTHONPATH=$root/client/python/src "$venv/bin/python" -B examples/python/execute.py "$@" examples/python/attend.ipynb
