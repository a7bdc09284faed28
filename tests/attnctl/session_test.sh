#!/bin/sh
# session_test.sh ATTND ATTNCTL GOLDEN_DIR
#
# attnctl as a person and a script would use it, against the real server: what it prints, what it writes, and how it
# exits.
set -u
attnd=$1 attnctl=$2 golden=$3
work=$(mktemp -d)
server=
failures=0
trap '[ -z "$server" ] || kill "$server"; rm -rf "$work"' EXIT

# expect CODE PATTERN COMMAND...: the exit code, and a line of output (standard output and error) that matches, unless
# the pattern is empty.
expect() {
  code=$1 pattern=$2
  shift 2
  got=0
  "$@" >"$work/said" 2>&1 || got=$?
  if [ "$got" != "$code" ] || { [ -n "$pattern" ] && ! grep -qE -- "$pattern" "$work/said"; }; then
    echo "FAILED: $*"
    echo "expected exit code $code and /$pattern/, got $got and:"
    cat "$work/said"
    failures=$((failures + 1))
  fi
}

export ATTND_SERVER="unix:$work/attnd.sock" NO_COLOR=
expect 3 "cannot reach unix:$work/attnd.sock" "$attnctl" info
expect 3 'start it with `attnd --listen' "$attnctl" info
# A script may start the server beside its first call.
{ sleep 0.3; exec "$attnd" "--listen=unix:$work/late.sock" 2>"$work/late"; } &
server=$!
expect 0 '^book$' "$attnctl" models list --names --server "unix:$work/late.sock" --retry_for 1m
kill "$server"
wait "$server"
server=

# Biases that words or files define are compared without a server.
compare() { "$attnctl" bias compare "$@"; }
cat >"$work/others.json" <<'TABLES'
{"tables": {"decoder.0": {"rule": "alibi", "slopes": [0.5, 0.25]},
            "encoder": {"rule": "per_offset", "min_offset": -1, "values": [[0, 1, 2], [3, 4, 5]]}}}
TABLES
expect 0 '^  113 .. 127 +-0.5665$' compare t5:32,128 --max_offset 127
expect 0 'saturates at offset 4: one value from there on' compare t5:4,5@0.1,0.2,0.3,0.4 alibi:8
expect 0 '---- trained length 64 ----' compare alibi:8 t5:32,128 --trained_length 64 --heads 0,7
expect 0 '"buckets":\[0,1,2,2,3,3\]' compare t5:4,5@0.1,0.2,0.3,0.4 --max_offset 5 --format json
expect 0 '"values":\[$' compare offsets:0@0.1 --format json
expect 0 '^<svg ' compare alibi:8 t5:32,128,heads=8 --format svg
expect 0 'log scale' compare alibi:8 --axis log --max_offset 8 --format svg
expect 0 'a value per offset, -1 to 1; bidirectional; 2 heads; table encoder' compare "file:$work/others.json:encoder"
expect 0 'T5, 32 buckets.* table decoder' compare "file:$golden/checkpoints/t5_fp32"
expect 2 'alibi:0: heads: expected 1 to 4096, got 0' compare alibi:8 alibi:0
expect 2 't5:4,2: max_distance: expected more than 2' compare t5:4,2
expect 2 'alibi:8#9: head: expected 0 to 7, got 9' compare alibi:8#9
expect 2 '--heads: expected 0 to 7, got 8' compare alibi:8 --heads 8
expect 2 '--heads: expected all, or numbers of heads, as 0,3,5, got "x"' compare alibi:8 --heads x
expect 2 '--max_offset: expected 1 to 1048576, got 0' compare alibi:8 --max_offset 0
expect 2 '--trained_length: expected 1 to 1048576, got -1' compare alibi:8 --trained_length=-1
expect 2 '--max_offset: expected a whole number' compare alibi:8 --max_offset 99999999999999999999
expect 2 'sources: expected 1 to 8, got 9' compare alibi:1 alibi:1 alibi:1 alibi:1 alibi:1 alibi:1 alibi:1 alibi:1 alibi:1
expect 4 'absent.json: No such file' compare "file:$work/absent.json"
expect 4 'others.json:decoder.1: table: expected one of model .*: decoder.0, encoder, got "decoder.1"' \
  compare "file:$work/others.json:decoder.1"
expect 3 "cannot reach unix:$work/attnd.sock" compare alibi:8 t5-tiny

"$attnd" "--listen=$ATTND_SERVER" "--model_root=$golden/checkpoints" 2>"$work/log" &
server=$!
until "$attnctl" info >/dev/null 2>&1; do
  kill -0 "$server" || { cat "$work/log"; exit 1; }
done

# status OF COMMAND...: the command's exit code, its standard output as the caller set it.
status() {
  code=$1
  shift
  got=0
  "$@" 2>"$work/said" || got=$?
  [ "$got" = "$code" ] || { echo "FAILED: $*: expected exit code $code, got $got"; cat "$work/said"; failures=$((failures + 1)); } >&2
}
# holds WHAT CONDITION...
holds() {
  what=$1
  shift
  "$@" || { echo "FAILED: $what"; failures=$((failures + 1)); }
}

# Help and usage.
expect 0 '^Commands:' "$attnctl" --help
expect 0 '^Usage: attnctl attend' "$attnctl" attend --help
expect 0 '^Usage: attnctl models load PATH' "$attnctl" help models load
expect 2 'expected a command, got none' "$attnctl"
expect 2 'there is no command "dance"' "$attnctl" dance
expect 2 'there is no flag "--dance"' "$attnctl" info --dance
expect 2 'takes no --head' "$attnctl" info --head 1
expect 2 '--queries: expected a whole number from 1 to 2147483647, got "many"' "$attnctl" bias book --queries many
expect 2 '--queries needs a value' "$attnctl" bias book --queries
expect 2 'does not take "more"' "$attnctl" models list more
expect 2 'needs MODEL' "$attnctl" models show

# Models.
expect 0 '^book +1 +1 +decoder' "$attnctl" models list
expect 0 '^t5_fp32$' "$attnctl" models list --names
expect 0 '32 buckets, max distance 128; causal' "$attnctl" models show t5_fp32
expect 0 '"num_buckets": 4' "$attnctl" models show book --json
expect 4 'nobody' "$attnctl" models show nobody
expect 0 'loaded mine version 1' "$attnctl" models load t5_fp32 --name=mine
expect 1 'models reload' "$attnctl" models load t5_fp32 --name mine
expect 0 'reloaded mine version 2' "$attnctl" --server "$ATTND_SERVER" models reload mine
expect 0 'unloaded mine' "$attnctl" models unload mine
expect 4 'no such file|cannot open|ENOENT|No such' "$attnctl" models upload up "$work/absent"
# As Hugging Face's cache keeps them: links to blobs without an ending.
mkdir -p "$work/hub/blobs" "$work/hub/snapshots/main"
for file in umt5-two-first-00001-of-00002.gguf umt5-two-first-00002-of-00002.gguf; do
  cp "$golden/gguf_split/$file" "$work/hub/blobs/blob-$file.blob"
  ln -s "../../blobs/blob-$file.blob" "$work/hub/snapshots/main/$file"
done
cp "$golden/checkpoints/t5_fp32/model.safetensors" "$work/hub/blobs/weights"
ln -s ../../blobs/weights "$work/hub/snapshots/main/model.safetensors"
cp "$golden/checkpoints/t5_fp32/config.json" "$work/hub/snapshots/main"
expect 0 'uploaded cached version 2 \(decoder, encoder' "$attnctl" models upload cached "$work/hub/snapshots/main"
expect 0 'uploaded shards version 4 ' "$attnctl" models upload shards \
  "$work/hub/snapshots/main/umt5-two-first-00001-of-00002.gguf"
rm "$work/hub/snapshots/main/umt5-two-first-00002-of-00002.gguf"
expect 1 'umt5-two-first-00002-of-00002.gguf" is missing' "$attnctl" models upload fewer \
  "$work/hub/snapshots/main/umt5-two-first-00001-of-00002.gguf"
expect 0 'uploaded up version 2 \(decoder, encoder' "$attnctl" models upload up "$golden/checkpoints/t5_fp32"
expect 0 'kernel' "$attnctl" info
expect 0 'max_inflight_bytes +[1-9][0-9]*$' "$attnctl" info
expect 0 'max_shared_bytes +[1-9][0-9]*$' "$attnctl" info
expect 0 'models +[1-9][0-9]* bytes of tables$' "$attnctl" info
expect 0 'refused_by_share +0$' "$attnctl" info
expect 0 '"largest_peer_bytes": 0' "$attnctl" info --json
expect 0 'max_peer_sessions +256$' "$attnctl" info

# Sessions; what there is to see of open ones is in test_sessions.py.
plan() { "$attnctl" sessions plan "$@"; }
expect 0 '^no session is open$' "$attnctl" sessions list
expect 4 'ID: expected the number of an open session, got 3' "$attnctl" sessions show 3
expect 2 'ID: expected the number of a session, got "three"' "$attnctl" sessions evict three
expect 2 'needs --self_layers or --cross_layers' plan
expect 2 'needs --max_tokens' plan --self_layers 6
expect 2 'did you mean 4GiB' plan --budget 4GB
expect 0 'reserves 107000704 bytes \(102.0 MiB\)' plan --rows 16 --sources 4 --self_layers 6 --cross_layers 6 \
  --heads 8 --head_dim 64 --max_tokens 256 --max_source_tokens 512 --dtype bf16
expect 0 '^  one caller +20 ' plan --rows 16 --sources 4 --self_layers 6 --cross_layers 6 --heads 8 --head_dim 64 \
  --max_tokens 256 --max_source_tokens 512 --dtype bf16 --budget 4GiB --server unix:/nobody

# Health.
expect 0 '^SERVING$' "$attnctl" health
expect 0 '^SERVING$' "$attnctl" health --service attnd.v1.AttentionService
expect 0 '^SERVING$' "$attnctl" health --service liveness
expect 4 '--service: expected a service that the server has' "$attnctl" health --service nobody
expect 3 'cannot reach' "$attnctl" health --server "unix:$work/absent.sock"
expect 2 'takes no --model' "$attnctl" health --model book

# Attention.
input=$golden/trained/t5-tiny_decoder0_512.safetensors
expect 0 'max abs error against o_hf' "$attnctl" attend --model t5-tiny --input "$input" --output "$work/o" --lse \
  --compare o_hf --tolerance 1e-4
grep -q '"lse"' "$work/o" && grep -q '"model":"t5-tiny"' "$work/o" || { echo "FAILED: $work/o lacks lse or metadata"; failures=1; }
expect 1 'more than the tolerance' "$attnctl" attend --model t5-tiny --input "$input" --compare o --tolerance 1e-9
expect 1 'more than the tolerance' "$attnctl" attend --model t5-tiny --input "$input" --compare o --tolerance 0.01 \
  --scale 0.125
expect 0 'F16 from t5-tiny' "$attnctl" attend --model=t5-tiny "--input=$input" --output "$work/half" --output_dtype f16
expect 0 'whole call .*, by the local socket$' "$attnctl" attend --model t5-tiny --input "$input" --output "$work/way"
expect 0 'whole call .*, by gRPC, tensors in shared memory$' "$attnctl" attend --model t5-tiny --input "$input" \
  --output "$work/grpc_way" --grpc_only
cmp -s "$work/way" "$work/grpc_way" || { echo "FAILED: gRPC and the local socket differ"; failures=1; }
expect 4 'has no tensor "q"; it has ' "$attnctl" attend --model book --input \
  "$golden/checkpoints/t5_old_config/model.safetensors" --output "$work/none"
expect 4 'absent' "$attnctl" attend --model book --input "$work/absent" --output "$work/none"
expect 1 'the axes of q, heads: expected 1 [^,]*, got 8' "$attnctl" attend --model book --input "$input" --output "$work/none"
expect 1 'key_lengths: expected none or 1 ' "$attnctl" attend --model t5-tiny --input "$input" --output "$work/none" \
  --key_lengths 1,2
expect 2 '--mask: expected causal or none' "$attnctl" attend --model t5-tiny --input "$input" --output x --mask all
expect 2 'needs --output' "$attnctl" attend --model t5-tiny --input "$input"

# The input is no output, by whatever name it is called.
cp "$input" "$work/precious"
ln -s precious "$work/soft_link"
ln "$work/precious" "$work/hard_link"
for other in precious ./precious soft_link hard_link "../$(basename "$work")/precious"; do
  expect 2 '--output: expected another file than --input' "$attnctl" attend --model t5-tiny \
    --input "$work/precious" --output "$work/$other"
  expect 2 'q, k and v would be lost' "$attnctl" attend --model t5-tiny --input "$work/$other" --output "$work/precious"
done
holds "the input is as it was" cmp "$input" "$work/precious"
expect 1 'cannot write .*/nowhere/o: No such' "$attnctl" attend --model t5-tiny --input "$input" --output "$work/nowhere/o"
expect 1 'make that folder first' "$attnctl" attend --model t5-tiny --input "$input" --output "$work/nowhere/o"

# JSON, for programs.
json() {  # CONDITION, of the variable j in Python; then the command
  condition=$1
  shift
  "$attnctl" "$@" >"$work/json" 2>"$work/said"
  holds "attnctl $*: $condition" python3 -c 'import json, sys
j = json.load(open(sys.argv[1]))
sys.exit(not eval("(" + sys.argv[2] + ")"))' "$work/json" "$condition"
}
json 'j["model"]["name"] == "t5-tiny" and j["model"]["version"] == 1 and j["shapes"]["o"] == [1, 8, 512, 64] and
  j["comparison"]["max_abs_error"] < 1e-4 and 0 < j["comparison"]["rms_error"] < j["comparison"]["max_abs_error"] and
  j["comparison"]["within_tolerance"] is True and j["pieces"] == 1 and j["transport"] == "local"' \
  attend --model t5-tiny --input "$input" --compare o_hf --tolerance 1e-4 --format json
json 'j["comparison"]["within_tolerance"] is False and j["output"] is None' \
  attend --model t5-tiny --input "$input" --compare o_hf --tolerance 1e-9 --format json
expect 1 'more than the tolerance' "$attnctl" attend --model t5-tiny --input "$input" --compare o_hf --tolerance 1e-9 --format json
json 'j["model"] is None and j["comparison"] is None and j["output"].endswith("/o") and j["output_dtype"] == "BF16"' \
  attend --bias none --input "$input" --output "$work/o" --format json --output_dtype bf16
json 'j["status"] == "SERVING"' health --format json
json 'j["kernel"] and j["limits"]["max_dim"] > 0' info --format json
json '[m["name"] for m in j["models"]].count("book") == 1' models list --format json
json 'j["name"] == "book" and len(j["tables"][0]["values"]) == 4' models show book --format json
json '[c["name"] for c in j["commands"]].count("models load") == 1' help --format json
# Masks, and no bias. The input is of one sequence of 512 queries and keys.
q() { "$attnctl" attend --input "$input" "$@"; }
expect 2 'needs --model, or --bias none' q --output "$work/none"
expect 2 'goes without --model' q --bias none --model t5-tiny --output "$work/none"
expect 1 'attnctl: --table: expected none with --bias none, got "encoder"' q --bias none --table encoder --output "$work/none"
expect 1 'attnctl: --query_offsets: expected none beside --query_offset' q --bias none --query_offset 1 --query_offsets 1 \
  --output "$work/none"
expect 1 'attnctl: --key_starts\[0\]: expected 0 to 512, got 513' q --bias none --key_starts 513 --output "$work/none"
expect 4 'has no tensor "mask"' q --bias none --key_mask mask --output "$work/none"
expect 1 'q: expected BOOL or integers, got F32' q --bias none --key_mask q --output "$work/none"
expect 0 ' F32 without bias; server' q --bias none --output "$work/bare"
holds "a call without bias says so, and names no model" sh -c 'grep -q "\"bias\":\"none\"" "$1" && ! grep -q "\"model" "$1"' - "$work/bare"
[ ! -e "$work/none" ] || { echo "FAILED: a refused call wrote a file"; failures=1; }

# The bias.
expect 0 '^q5  u3 u3 u2 u2 u1 u0$' "$attnctl" bias book --queries 6
expect 0 '^<svg ' "$attnctl" bias --queries 6 --format svg book
expect 0 'decoder, head 3: bias' "$attnctl" bias t5-tiny --head 3 --format=svg
expect 0 'decoder, 8 heads: bias' "$attnctl" bias t5-tiny --heads all --format=svg
expect 0 '^head 5$' "$attnctl" bias t5-tiny --heads 0,5
expect 0 '"heads":\[0,5\]' "$attnctl" bias t5-tiny --heads 0,5 --format json
expect 2 '--heads: expected all, or numbers' "$attnctl" bias t5-tiny --heads 0,x
expect 2 '--heads: expected none beside --head' "$attnctl" bias t5-tiny --head 1 --heads all
expect 1 '--head or --heads: expected 0 to 7, got 8' "$attnctl" bias t5-tiny --heads 0,8
expect 0 '\[1,0,null\]' "$attnctl" bias book --queries 3 --format json
expect 0 'offset 5 - 9 = -4, so the key comes after' "$attnctl" bias book --explain 5,9
expect 0 'offset 5 - 2 = 3, .* bucket 2 \(offsets 2 to 3\)' "$attnctl" bias book --explain 5,2
expect 0 'bucket 3 \(offsets from 4 on\)' "$attnctl" bias book --explain 5,0
expect 0 'bucket 0 \(offset 0\)' "$attnctl" bias book --explain 5,5
expect 0 '"bucket_range":{"bucket":3,"min_offset":4,"max_offset":null}' "$attnctl" bias book --explain 5,0 --format json
expect 0 '"masked":true,"bucket":null,"bucket_range":null' "$attnctl" bias book --explain 5,9 --format json
expect 2 '--format: expected text or json with --explain, got svg' "$attnctl" bias book --explain 5,2 --format svg
expect 2 '--explain' "$attnctl" bias book --explain 5
expect 1 'expected' "$attnctl" bias book --head 7
expect 1 "server's limits" "$attnctl" bias book --queries 100000
expect 0 '' "$attnctl" bias book --format svg --out "$work/book.svg"
grep -q '</svg>' "$work/book.svg" || { echo "FAILED: no picture"; failures=1; }
"$attnctl" bias t5-tiny --queries 3 --heads 0,5 --format json >"$work/heads.json"
"$attnctl" bias t5-tiny --explain 5,9 --format json >"$work/masked.json"
holds "the JSON of heads has a matrix for each, with null where it is masked" python3 -c '
import json, sys
heads, masked = (json.load(open(path)) for path in sys.argv[1:])
assert [[cell is None for cell in row] for row in heads["values"][1]] == [[False, True, True], [False, False, True], [False] * 3]
assert heads["values"][0] != heads["values"][1] and len(heads["values"]) == 2, heads
assert heads["bucket_ranges"][0] == {"bucket": 0, "min_offset": None, "max_offset": 0}, heads
assert masked["values"] == [None] * 8 and masked["offset"] == -4, masked
' "$work/heads.json" "$work/masked.json"

# Loaded models among what is compared, and a model whose name is a command's.
expect 0 'table decoder, version 1$' compare t5-tiny#1 alibi:8
expect 0 'bidirectional; 8 heads; table encoder, version 1$' compare model:t5-tiny:encoder
expect 4 'nobody' compare alibi:8 nobody
expect 4 'book:encoder: table: expected one of model "book".s: decoder, got "encoder"' compare book:encoder
expect 0 'uploaded compare' "$attnctl" models upload compare "$golden/checkpoints/t5_fp32"
expect 0 '^compare version 2, decoder: buckets$' "$attnctl" bias --queries 3 -- compare
expect 0 'table decoder, version 2$' compare compare
expect 0 'unloaded compare' "$attnctl" models unload compare

# Output goes where the user said: to what a path leads to, which stays what it is.
attend() { "$attnctl" attend --model t5-tiny --input "$input" "$@"; }
"$attnctl" bias book --format svg --out "$work/picture.svg"
mkfifo "$work/fifo"
ln -s picture.svg "$work/link"
ln -s /proc/self/fd/1 "$work/to_stdout"
# Devices of its own: what replaced one would not replace the machine's. Who may not make them may not replace any.
null=$work/null full=$work/full
{ mknod "$null" c 1 3 && mknod "$full" c 1 7 && : >"$null"; } 2>"$work/said" || null=/dev/null full=/dev/full
timeout 60 cat "$work/fifo" >"$work/through" &
reader=$!
status 0 "$attnctl" bias book --format svg --out "$work/fifo"
wait "$reader"
printf old >"$work/picture.svg"
status 0 "$attnctl" bias book --format svg --out "$work/link"
holds "a FIFO stays one, and is written through" test -p "$work/fifo"
holds "a link stays one" test -L "$work/link"
holds "a FIFO and a link get the whole picture" cmp "$work/through" "$work/picture.svg"
attend --output "$work/o" >"$work/summary"
holds "the summary goes to standard output" grep -q 'whole call' "$work/summary"
for path in - "$work/to_stdout" /proc/self/fd/1; do
  status 0 attend --output "$path" >"$work/piped"
  holds "the tensors alone in standard output ($path)" cmp "$work/o" "$work/piped"
  holds "the summary goes to standard error ($path)" grep -q 'whole call' "$work/said"
  attend --output "$path" 2>"$work/said" | cat >"$work/piped"
  holds "the same into a pipe ($path)" cmp "$work/o" "$work/piped"
done
(echo before; attend --output "$work/to_stdout") 2>"$work/said" >"$work/appended"
holds "standard output goes on where it was" test "$(head -c 6 "$work/appended")" = before
holds "and is the same file" test "$(tail -c +8 "$work/appended" | cmp - "$work/o" && echo same)" = same
status 0 attend --output "$null" >"$work/summary"
holds "a device stays one" test -c "$null"
chmod 640 "$work/o"
status 0 attend --output "$work/o" >"$work/summary"
holds "permissions are kept" test "$(stat -c %a "$work/o")" = 640
expect 1 'cannot write .*/none/o: No such file' attend --output "$work/none/o"
expect 1 'cannot write .*: it is a folder' attend --output "$work"

# A full disk: exit 1, words about the disk and not about the server, nothing half written.
for output in "attend --model t5-tiny --input $input --output" "bias book --format svg --out"; do
  # shellcheck disable=SC2086
  expect 1 'is the disk full' "$attnctl" $output "$full"
  holds "a full device stays one" test -c "$full"
done
for command in --help --version 'help bias' 'sessions list' 'models list' 'models show book' 'models show book --json' \
  "models upload full$$ $golden/checkpoints/t5_fp32" info 'info --json' 'bias book' 'bias book --explain 5,2' \
  "attend --model t5-tiny --input $input --compare o_hf" "attend --model t5-tiny --input $input --output -"; do
  # shellcheck disable=SC2086
  status 1 "$attnctl" $command >/dev/full
  holds "$command says what is full" grep -q 'cannot write .*: No space left' "$work/said"
  holds "$command blames the disk" grep -q 'is the disk full' "$work/said"
  case $command in *upload*) continue ;; esac  # there is such a model now
  # shellcheck disable=SC2086
  status 1 "$attnctl" $command >&-
  holds "$command says what is closed" grep -q 'cannot write .*: Bad file descriptor' "$work/said"
done
for flag in --help --version; do
  status 1 "$attnd" $flag >/dev/full
  holds "attnd $flag says what is full" grep -q 'attnd: cannot write standard output: No space' "$work/said"
  status 1 "$attnd" $flag >&-
  status 0 "$attnd" $flag >"$work/said_out"
  holds "attnd $flag says something" test -s "$work/said_out"
done
expect 0 '^attnctl [0-9]' "$attnctl" --version
# A reader that has seen enough ends attnctl silently, as it ends any tool.
{ env --default-signal=PIPE "$attnctl" bias book --queries 256 --format json 2>"$work/said"; echo $? >"$work/code"; } | head -c 1 >"$work/head"
holds "ended by the closed pipe" test "$(cat "$work/code")" = 141
holds "silently" test ! -s "$work/said"
# A full file system of 64 KiB, where one can be mounted.
mkdir "$work/small"
if mount -t tmpfs -o size=64k tmpfs "$work/small" 2>"$work/said"; then
  printf old >"$work/small/o"
  expect 1 'is the disk full' attend --output "$work/small/o"
  expect 1 'is the disk full' attend --output "$work/small/new"
  ln "$work/small/o" "$work/small/second"
  expect 1 'is the disk full' attend --output "$work/small/o"
  holds "the old file stays" test "$(cat "$work/small/second")" = old
  rm "$work/small/second"
  holds "no stump is left" test "$(ls -A "$work/small")" = o
  umount "$work/small"
else
  echo "no tmpfs can be mounted here: left out"
fi

kill -TERM "$server"
wait "$server" || { echo "FAILED: the server ended with $?"; failures=1; }
server=
[ "$failures" = 0 ] && echo "attnctl: all as expected"
exit "$failures"
