#!/usr/bin/env bash
# Builds and starts attnd, sends it the real activations of a trained T5, compares the output with Hugging Face's, and
# draws the model's bias. Then it stops the server.
#   scripts/demo.sh
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "$0")/lib.sh"
cd "$root"

out=$root/build/demo
server=''
folder=''

stop_server() {
  local pid=$server
  server=''
  [ -z "$pid" ] || { kill -TERM "$pid" 2>/dev/null && wait "$pid"; }
}
cleanup() {
  stop_server || true
  [ -z "$folder" ] || rm -rf "$folder"
}
trap cleanup EXIT

heading "1. Set-up"
scripts/setup.sh
build_attnd release build attnd attnctl attend
attnd=build/server/attnd attnctl=build/client/attnctl example=build/examples/attend
mkdir -p "$out"

heading "2. The server, with the two models that are in it"
folder=$(mktemp -d)
export ATTND_SERVER=unix:$folder/attnd.sock
"$attnd" --listen="$ATTND_SERVER" 2>"$out/server.log" &
server=$!
for _ in $(seq 200); do
  "$attnctl" info --timeout 5s >"$out/info.txt" 2>/dev/null && break
  kill -0 "$server" 2>/dev/null || break
  sleep 0.05
done
[ -s "$out/info.txt" ] || { cat "$out/server.log" >&2; fail "the server did not start"; }
head -n 3 "$out/info.txt"
echo
"$attnctl" models list

heading "3. A trained T5's attention, computed here and by Hugging Face"
cat <<'END'
A small T5 reads 512 bytes of the King James Bible. The queries, keys and values of its first decoder layer (8 heads of
64) go to the server with the model's name, and the output comes back. The file also has what Hugging Face's T5 code made
of them (o_hf, in float32) and the same in float64 (o). Logits reach 280 here: float32 itself is good for about 2e-5.

END
input=tests/golden/trained/t5-tiny_decoder0_512.safetensors
attend() { "$attnctl" attend --model t5-tiny --input "$input" "$@" --tolerance 1e-4; }
attend --output "$out/attended.safetensors" --compare o_hf
attend --compare o

heading "4. The bias as the book draws it: a query and a key share a bucket with all others at their offset"
"$attnctl" bias book --queries 6
"$attnctl" bias book --queries 6 --format svg --out "$out/book.svg"
echo
"$attnctl" bias book --explain 5,2

heading "5. What the T5 has learned: head 0 looks two bytes back"
"$attnctl" bias t5-tiny --head 0 --queries 12
"$attnctl" bias t5-tiny --head 0 --queries 64 --format svg --out "$out/t5-tiny_head0.svg"
"$attnctl" bias t5-tiny --heads all --queries 64 --format svg --out "$out/t5-tiny_heads.svg"
printf '\nWith nothing but the bias, on the last of 512 tokens (examples/attend.cc):\n\n'
"$example" "$ATTND_SERVER"

stop_server || fail "the server stopped with an error: $(tail -n 3 "$out/server.log")"
heading "All as it should be. The server has stopped; the pictures are build/demo/book.svg, t5-tiny_head0.svg and t5-tiny_heads.svg"
