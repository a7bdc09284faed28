#!/bin/sh
# attnctl_test.sh ATTND ATTNCTL GOLDEN_DIR
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

"$attnd" "--listen=$ATTND_SERVER" "--model_root=$golden/checkpoints" 2>"$work/log" &
server=$!
until "$attnctl" info >/dev/null 2>&1; do
  kill -0 "$server" || { cat "$work/log"; exit 1; }
done

# Help and usage.
expect 0 '^Commands:' "$attnctl" --help
expect 0 '^Usage: attnctl attend' "$attnctl" attend --help
expect 0 '^Usage: attnctl models load PATH' "$attnctl" help models load
expect 2 'what is to be done' "$attnctl"
expect 2 'there is no command "dance"' "$attnctl" dance
expect 2 'there is no flag --dance' "$attnctl" info --dance
expect 2 'takes no --head' "$attnctl" info --head 1
expect 2 '--queries: cannot understand "many"' "$attnctl" bias book --queries many
expect 2 '--queries needs a value' "$attnctl" bias book --queries
expect 2 'does not take "more"' "$attnctl" models list more
expect 2 'needs MODEL' "$attnctl" models show

# Models.
expect 0 '^book +1 +1 +decoder' "$attnctl" models list
expect 0 '32 buckets, max distance 128; causal' "$attnctl" models show t5_fp32
expect 0 '"num_buckets": 4' "$attnctl" models show book --json
expect 4 'nobody' "$attnctl" models show nobody
expect 0 'loaded mine version 1' "$attnctl" models load t5_fp32 --name=mine
expect 1 'models reload' "$attnctl" models load t5_fp32 --name mine
expect 0 'reloaded mine version 2' "$attnctl" --server "$ATTND_SERVER" models reload mine
expect 0 'unloaded mine' "$attnctl" models unload mine
expect 4 'no such file|cannot open|ENOENT|No such' "$attnctl" models upload up "$work/absent"
expect 0 'uploaded up version 2 \(decoder, encoder' "$attnctl" models upload up "$golden/checkpoints/t5_fp32"
expect 0 'kernel' "$attnctl" info
expect 0 'max_inflight_bytes +1073741824$' "$attnctl" info
expect 0 'max_shared_bytes +0$' "$attnctl" info

# Attention.
input=$golden/trained/t5-tiny_decoder0_512.safetensors
expect 0 'max abs error against o_hf' "$attnctl" attend --model t5-tiny --input "$input" --output "$work/o" --lse \
  --compare o_hf --tolerance 1e-4
grep -q '"lse"' "$work/o" && grep -q '"model":"t5-tiny"' "$work/o" || { echo "FAILED: $work/o lacks lse or metadata"; failures=1; }
expect 1 'more than the tolerance' "$attnctl" attend --model t5-tiny --input "$input" --compare o --tolerance 1e-9
expect 1 'more than the tolerance' "$attnctl" attend --model t5-tiny --input "$input" --compare o --tolerance 0.01 \
  --scale 0.125
expect 0 'F16 from t5-tiny' "$attnctl" attend --model=t5-tiny "--input=$input" --output "$work/half" --output_dtype f16
expect 4 'has no tensor q; it has ' "$attnctl" attend --model book --input \
  "$golden/checkpoints/t5_old_config/model.safetensors" --output "$work/none"
expect 4 'absent' "$attnctl" attend --model book --input "$work/absent" --output "$work/none"
expect 1 'heads: expected 1 ' "$attnctl" attend --model book --input "$input" --output "$work/none"
expect 1 'key_lengths: expected none or 1 ' "$attnctl" attend --model t5-tiny --input "$input" --output "$work/none" \
  --key_lengths 1,2
expect 2 '--mask: expected causal or none' "$attnctl" attend --model t5-tiny --input "$input" --output x --mask all
expect 2 'needs --output' "$attnctl" attend --model t5-tiny --input "$input"
[ ! -e "$work/none" ] || { echo "FAILED: a refused call wrote a file"; failures=1; }

# The bias.
expect 0 '^q5  u3 u3 u2 u2 u1 u0$' "$attnctl" bias book --queries 6
expect 0 '^<svg ' "$attnctl" bias --queries 6 --format svg book
expect 0 'head 3, added' "$attnctl" bias t5-tiny --head 3 --format=svg
expect 0 '\[1,0,null\]' "$attnctl" bias book --queries 3 --format json
expect 0 'offset 5 - 9 = -4, so the key comes after' "$attnctl" bias book --explain 5,9
expect 0 'offset 5 - 2 = 3, .* bucket 2' "$attnctl" bias book --explain 5,2
expect 2 '--explain' "$attnctl" bias book --explain 5
expect 1 'expected' "$attnctl" bias book --head 7
expect 1 "server's limits" "$attnctl" bias book --queries 100000
expect 0 '' "$attnctl" bias book --format svg --out "$work/book.svg"
grep -q '</svg>' "$work/book.svg" || { echo "FAILED: no picture"; failures=1; }

kill -TERM "$server"
wait "$server" || { echo "FAILED: the server ended with $?"; failures=1; }
server=
[ "$failures" = 0 ] && echo "attnctl: all as expected"
exit "$failures"
