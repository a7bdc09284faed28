#!/usr/bin/env bash
# Computes attention with grpcurl: run.sh ADDRESS MODEL INPUT OUTPUT (see the README one folder up). Needs grpcurl alone:
# the server describes its messages by reflection.
set -euo pipefail
address=$1 model=$2 input=$3 output=$4
tensor() { dd if="$input" bs=$((8 * 2048 * 64 * 4)) skip="$1" count=1 status=none | base64 -w 0; }

request() {
  printf '{"model": "%s", "batch": 1, "heads": 8, "query_length": 2048, "key_length": 2048, "head_dim": 64,' "$model"
  printf '"dtype": "DTYPE_FP32", "q": "%s", "k": "%s", "v": "%s"}' "$(tensor 0)" "$(tensor 1)" "$(tensor 2)"
}
# The reply is 89 bytes over the 4 MiB that grpcurl receives by default. It prints errors with their details.
reply=$(request | grpcurl -plaintext -max-msg-sz $((64 << 20)) -max-time 30 -d @ "$address" \
  attnd.v1.AttentionService/ComputeAttention)
sed -n 's/.*"output": "\([^"]*\)".*/\1/p' <<<"$reply" | base64 -d >"$output"
