#!/usr/bin/env bash
# examples/attend.cc against a real server: the trained T5's heads look as far back as its table says.
#   example_test.sh ATTND ATTNCTL EXAMPLE
set -euo pipefail
attnd=$1 attnctl=$2 example=$3
folder=$(mktemp -d)
address=unix:$folder/s
"$attnd" --listen="$address" 2>"$folder/log" &
server=$!
trap 'kill "$server" 2>/dev/null || true; cat "$folder/log"; rm -rf "$folder"' EXIT
until "$attnctl" info --server="$address" >/dev/null 2>&1; do
  kill -0 "$server" # a server that is gone ends the test
done

"$example" "$address" | tee "$folder/out"
[ "$(grep -c '^head [0-7] looks *[0-9.]* tokens back$' "$folder/out")" = 8 ]
grep -q '^head 0 looks    2.0 tokens back$' "$folder/out"
grep -q '^head 1 looks    1.2 tokens back$' "$folder/out"

kill -TERM "$server"
wait "$server"
