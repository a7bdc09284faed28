#!/usr/bin/env bash
# Builds the Python client's pages from docs/python and the docstrings, in build/python-docs/html. Warnings are errors. The
# first run creates a virtual environment from docs/python/requirements.txt, which needs the network.
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "$0")/lib.sh"

[ $# -eq 0 ] || { sed -n '2,3p' "$0" >&2; exit 2; }
cd "$root"
venv=$(python_venv python-docs docs/python/requirements.txt)
PYTHONPATH=$root/client/python/src "$venv/bin/python" -B -m sphinx --fail-on-warning --keep-going --quiet \
  -d "$venv/doctrees" docs/python "$venv/html"
echo "build/python-docs/html/index.html: $(find "$venv/html" -maxdepth 1 -name '*.html' | wc -l) pages"
