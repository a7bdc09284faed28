#!/usr/bin/env bash
# Builds attnd, then stops, kills and starts it under load, directly and behind nginx and HAProxy, and counts failed calls of
# our client, Python's grpcio and grpc-js; fails if a call of our client fails. Takes some minutes, with little load.
#   scripts/restarts.sh [OPTION...]     options of tests/restarts/trial.py, which describes the trials
# Needs the network (PyPI, npm) the first time.
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "$0")/lib.sh"
cd "$root"

lists=(--restarts)
command -v npm >/dev/null || lists+=(--npm)
scripts/setup.sh "${lists[@]}"
build=$root/build out=$root/build/restarts
build_attnd release "$build" attnd restart_driver -- -DATTND_TESTS=ON
install_clients() {
  [ -x "$out/python/bin/python" ] || python3 -m venv "$out/python"
  "$out/python/bin/pip" install --quiet -r tests/restarts/requirements.txt
  cp tests/restarts/package.json "$out"
  npm install --prefix "$out" --no-audit --no-fund
}
mkdir -p "$out"
step "Installing grpcio and grpc-js" "$build/logs/restarts.log" install_clients
heading "Stops and starts under load"
export NODE_PATH=$out/node_modules
python3 tests/restarts/trial.py --attnd "$build/server/attnd" --driver "$build/tests/restarts/restart_driver" \
  --python "$out/python/bin/python" --out "$out" "$@"
