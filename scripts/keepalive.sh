#!/usr/bin/env bash
# Builds attnd and its client, and measures in real time how long a call waits for a server that has stopped answering.
# It uses the default keepalive settings, which the tests scale down. Takes about a minute and a half.
#   scripts/keepalive.sh
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "$0")/lib.sh"
cd "$root"

scripts/setup.sh
build=$root/build
build_attnd release "$build" attnd keepalive_check -- -DATTND_TESTS=ON
log=$build/logs/keepalive.log
build/server/attnd --listen=127.0.0.1:0 2>"$log" &
server=$!
trap 'kill -CONT "$server" 2>/dev/null; kill -KILL "$server" 2>/dev/null || true' EXIT
address=$(await_address "$log" "$server") || fail "the server did not start: $(tail -n 3 "$log")"
build/tests/soak/keepalive_check --server="$address" --pid="$server"
