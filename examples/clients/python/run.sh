#!/usr/bin/env bash
# run.sh ADDRESS MODEL INPUT OUTPUT     needs python3 with venv; PROGRAM=stream.py runs the other program
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
proto=$here/../../../proto
[ -x "$here/.venv/bin/python" ] || python3 -m venv "$here/.venv"
"$here/.venv/bin/python" -m pip install --quiet --disable-pip-version-check -r "$here/requirements.txt"
mkdir -p "$here/generated"
"$here/.venv/bin/python" -m grpc_tools.protoc -I "$proto" --python_out="$here/generated" \
  --grpc_python_out="$here/generated" "$proto"/attnd/v1/*.proto
PYTHONPATH=$here/generated exec "$here/.venv/bin/python" "$here/${PROGRAM:-attend.py}" "$@"
