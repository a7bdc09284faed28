#!/usr/bin/env bash
# Starts attnd, drives mixed load with attacks beside it, and samples what attnd holds; called by scripts/soak.sh and by
# the tests.
#   run.sh ROOT BUILD ATTND DRIVER NAME SECONDS [DRIVER-FLAG...]
# Samples are in BUILD/soak/NAME.csv, the server's log beside them. Fails if the driver or an attack does, or if the server
# does not end well.
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "$0")/../../scripts/lib.sh"
[ $# -ge 6 ] || { sed -n '2,6p' "$0" >&2; exit 2; }
root=$1 build=$2 attnd=$3 driver=$4 name=$5 seconds=$6
shift 6
each=$((seconds >= 100 ? 10 : seconds >= 10 ? 1 : 0)) # seconds that an attack takes
bytes=$((1 << 30))
every=5 # seconds between samples
out=$build/soak
mkdir -p "$out"
samples=$out/$name.csv log=$out/$name.log

# end PID: sends SIGTERM and waits for a minute; then it is killed. Returns its status.
end() {
  local timer status=0
  kill -TERM "$1" 2>/dev/null || true
  (sleep 60 && kill -KILL "$1") >/dev/null 2>&1 &
  timer=$!
  wait "$1" || status=$?
  kill "$timer" 2>/dev/null || true
  return "$status"
}

folder=$(mktemp -d)
server='' load='' attacks=''
cleanup() {
  for pid in $load $attacks $server; do kill -KILL "$pid" 2>/dev/null || true; done
  rm -rf "$folder"
}
trap cleanup EXIT

mkdir "$folder/models"
cp "$root/src/model/embedded/t5-tiny.json" "$folder/models/loaded.json"
"$attnd" --listen="127.0.0.1:0,unix:$folder/attnd.sock" --model_root="$folder/models" --max_inflight_bytes="$bytes" \
  --stall_seconds=5 --min_rate=16MiB 2>"$log" &
server=$!
address=$(await_address "$log" "$server") || { cat "$log" >&2; echo "the server did not start" >&2; exit 1; }

"$driver" --servers="$address,unix:$folder/attnd.sock" --seconds="$seconds" \
  --golden="$root/tests/golden/trained/t5-tiny_decoder0_512.safetensors" "$@" &
load=$!
python3 -B "$root/tests/soak/hostile.py" --target="$address" --bytes="$bytes" --each="$each" &
attacks=$!
: >"$samples"
started=$SECONDS
while kill -0 "$load" 2>/dev/null; do
  if [ $((SECONDS - started)) -gt $((seconds + 100)) ]; then
    echo "the driver has not ended 100 seconds after its time" >&2
    kill -KILL "$load"
  fi
  resident=$(awk '/^VmRSS:/ { print $2 }' "/proc/$server/status")
  threads=$(awk '/^Threads:/ { print $2 }' "/proc/$server/status")
  descriptors=$(find "/proc/$server/fd" -mindepth 1 2>/dev/null | wc -l)
  echo "$((SECONDS - started)),$resident,$descriptors,$threads" >>"$samples"
  for _ in $(seq $((every * 5))); do
    kill -0 "$load" 2>/dev/null || break
    sleep 0.2
  done
done
status=0
wait "$load" || status=$?
load=''
end "$attacks" || { echo "the attacks ended with status $?" >&2; status=1; }
attacks=''
end "$server" || { echo "the server ended with status $?: $(tail -n 3 "$log")" >&2; status=1; }
server=''
exit "$status"
