#!/usr/bin/env bash
# run.sh ADDRESS MODEL INPUT OUTPUT     needs Node.js and npm
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
(cd "$here" && npm install --silent --no-audit --no-fund >&2)
exec node "$here/attend.js" "$@"
