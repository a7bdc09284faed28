#!/usr/bin/env bash
# Writes a ComputeAttentionRequest in protobuf's binary form, with the tensors q, k and v of a safetensors file (F32,
# [batch, heads, sequence, head_dim]), for load generators that take a file.
#   deploy/ghz/payload.sh INPUT.safetensors OUTPUT.pb [MODEL]
# Needs protoc. An encoded protobuf message is the concatenation of its fields: protoc encodes the small ones, and the
# tensors' bytes follow, each after its tag and length.
set -euo pipefail
[ $# -ge 2 ] || { sed -n '2,4p' "$0" >&2; exit 2; }
input=$1 output=$2 model=${3:-t5-tiny}
proto=$(cd "$(dirname "$0")/../../proto" && pwd)

header_bytes=$(od -An -tu8 -N8 "$input" | tr -d ' ')
# section BEGIN COUNT: writes COUNT bytes of the file, from BEGIN on.
section() { dd if="$input" iflag=skip_bytes,count_bytes bs=1M skip="$1" count="$2" status=none; }
header=$(section 8 "$header_bytes")

# tensor NAME: the tensor's entry in the header. shape NAME, range NAME: its dimensions, and its begin and end offsets.
tensor() { grep -oE "\"$1\":\{\"dtype\":\"F32\",[^}]*\}" <<<"$header" || { echo "$input: no F32 tensor $1" >&2; exit 1; }; }
shape() { tensor "$1" | sed -E 's/.*"shape":\[([^]]*)\].*/\1/; s/,/ /g'; }
range() { tensor "$1" | sed -E 's/.*"data_offsets":\[([^]]*)\].*/\1/; s/,/ /g'; }

varint() {
  local n=$1
  while [ "$n" -ge 128 ]; do printf '%b' "$(printf '\\x%02x' $((n % 128 + 128)))"; n=$((n / 128)); done
  printf '%b' "$(printf '\\x%02x' "$n")"
}
bytes_field() { # NUMBER TENSOR
  local begin end
  read -r begin end <<<"$(range "$2")"
  varint $(($1 * 8 + 2))
  varint $((end - begin))
  section $((8 + header_bytes + begin)) $((end - begin))
}

read -r batch heads query_length head_dim <<<"$(shape q)"
read -r _ kv_heads key_length _ <<<"$(shape k)"
read -r _ _ _ value_head_dim <<<"$(shape v)"
{
  protoc -I "$proto" --encode=attnd.v1.ComputeAttentionRequest attnd/v1/attention.proto <<END
model: "$model" batch: $batch heads: $heads kv_heads: $kv_heads query_length: $query_length key_length: $key_length
head_dim: $head_dim value_head_dim: $value_head_dim dtype: DTYPE_FP32
END
  bytes_field 100 q
  bytes_field 101 k
  bytes_field 102 v
} >"$output"
echo "$output: $(stat -c %s "$output") bytes, [$batch, $heads, $query_length, $head_dim] for model $model"
