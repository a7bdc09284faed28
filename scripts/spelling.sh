#!/usr/bin/env bash
# Finds common misspellings in code and documents with codespell; .codespellrc has the paths and the accepted words.
#   scripts/spelling.sh [FILE...]     default: the whole tree
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "$0")/lib.sh"

case ${1:-} in -*) sed -n '2,3p' "$0" >&2; exit 2 ;; esac
command -v codespell >/dev/null || "$root/scripts/setup.sh" --lint
[ $# -gt 0 ] || set -- .
cd "$root"
codespell "$@"
echo "codespell: no misspelling found"
