#!/usr/bin/env bash
# Load-tests ComputeAttention of a running attnd with ghz for ten seconds. The requests have a trained T5's activations
# (8 heads, 512 tokens).
#   deploy/ghz/run.sh [HOST:PORT] [GHZ_FLAG...]           default: 127.0.0.1:50051
# Settings: deploy/ghz/compute_attention.json. Fails if any call fails. Needs ghz (https://ghz.sh) and protoc.
set -euo pipefail
cd "$(dirname "$0")/../.."
target=127.0.0.1:50051
if [ $# -gt 0 ] && [ "${1#-}" = "$1" ]; then target=$1; shift; fi
command -v ghz >/dev/null || { echo "no ghz: go install github.com/bojand/ghz/cmd/ghz@v0.120.0" >&2; exit 1; }

mkdir -p build/ghz
deploy/ghz/payload.sh tests/golden/trained/t5-tiny_decoder0_512.safetensors build/ghz/t5-tiny_512.pb
report=build/ghz/report.txt
ghz --config deploy/ghz/compute_attention.json "$@" "$target" | tee "$report"
grep -qE '\[OK\] +[1-9]' "$report" && ! grep -qE '^Error distribution' "$report"
