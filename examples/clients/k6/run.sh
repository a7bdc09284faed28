#!/usr/bin/env bash
# run.sh ADDRESS MODEL INPUT     needs k6
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
exec k6 run --quiet --no-usage-report -e ADDRESS="$1" -e MODEL="$2" -e INPUT="$(realpath "$3")" "$here/attend.js"
