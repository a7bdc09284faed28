#!/usr/bin/env bash
# Executes examples/python/attend.ipynb against the attnd of build/ (or ATTND_BINARY), in a virtual environment of
# examples/python/requirements.txt, for which it needs the network the first time.
#   scripts/python_notebook.sh            fails if a cell fails or shows other text than the committed notebook
#   scripts/python_notebook.sh --write    puts what the cells show into the notebook
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "$0")/lib.sh"

case ${1:-} in '' | --write) ;; *) sed -n '2,5p' "$0" >&2; exit 2 ;; esac
cd "$root"
export ATTND_BINARY=${ATTND_BINARY:-$root/build/server/attnd}
[ -x "$ATTND_BINARY" ] || fail "no $ATTND_BINARY: scripts/test.sh builds it"
venv=$(python_venv python-notebook examples/python/requirements.txt)
PYTHONPATH=$root/client/python/src "$venv/bin/python" -B examples/python/execute.py "$@" examples/python/attend.ipynb
