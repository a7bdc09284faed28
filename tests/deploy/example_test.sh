#!/usr/bin/env bash
# The examples against a real server: quick runs, attend finds that the trained T5's heads look as far back as its table says, and
# the pictures in docs/images are what attnctl draws.
#   example_test.sh ATTND ATTNCTL QUICK ATTEND DECODE IMAGES
set -euo pipefail
attnd=$1 attnctl=$2 quick=$3 example=$4 decode=$5 images=$6
folder=$(mktemp -d)
address=unix:$folder/s
"$attnd" --listen="$address" 2>"$folder/log" &
server=$!
trap 'kill "$server" 2>/dev/null || true; cat "$folder/log"; rm -rf "$folder"' EXIT
until "$attnctl" info --server="$address" >/dev/null 2>&1; do
  kill -0 "$server" # a server that is gone ends the test
done

"$quick" "$address" | grep -E '^computed in [0-9.]+(us|ms)$'
"$example" "$address" | tee "$folder/out"
[ "$(grep -c '^head [0-7] looks *[0-9.]* tokens back$' "$folder/out")" = 8 ]
grep -q '^head 0 looks    2.0 tokens back$' "$folder/out"
grep -q '^head 1 looks    1.2 tokens back$' "$folder/out"
grep -q '^head 5 looks    1.4 tokens back$' "$folder/out"
[ "$(sed -n 's/^head [234678] looks *\([0-9]*\).*/\1/p' "$folder/out" | sort -n | sed -n '1p;$p' | xargs)" = "29 113" ]

# Step by step in a session the same heads look as far back.
"$decode" "$address" | tee "$folder/out"
[ "$(grep -c '^head [0-7] of token 99 looks at position *[0-9.]*$' "$folder/out")" = 8 ]
grep -q '^head 0 of token 99 looks at position  97.0$' "$folder/out"
grep -q '^head 1 of token 99 looks at position  97.8$' "$folder/out"
grep -q '^head 5 of token 99 looks at position  97.8$' "$folder/out"

"$attnctl" bias book --server="$address" --queries 6 --format svg | cmp - "$images/book.svg"
"$attnctl" bias t5-tiny --server="$address" --queries 64 --head 0 --format svg | cmp - "$images/t5-tiny_head0.svg"

kill -TERM "$server"
wait "$server"
