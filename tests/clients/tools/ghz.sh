# shellcheck shell=bash
# ghz counts answers and does not look at them.
go_tool github.com/bojand/ghz/cmd/ghz@v0.120.0
load() { # REQUEST [FLAG...]
  ghz --insecure --proto "$TREE/proto/attnd/v1/attention.proto" --import-paths "$TREE/proto" -n 20 -c 2 --timeout 30s \
    --call attnd.v1.AttentionService.ComputeAttention --binary-file "$@" "$ADDRESS" | tee "$SCRATCH/ghz.log"
  grep -q '\[OK\] *20 responses' "$SCRATCH/ghz.log"
}
load "$REQUEST" --max-recv-message-size 64MB
sed 's/t5-tiny/no-such/' "$REQUEST" >"$SCRATCH/unknown.pb"
refused NotFound "$UNKNOWN" -- load "$SCRATCH/unknown.pb"
refused 'received message larger than max \(41943[0-9]+ vs\. 4194304\)' -- load "$REQUEST" --max-recv-message-size 4MiB
echo "version: v0.120.0"
