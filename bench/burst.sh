#!/usr/bin/env bash
# Measures attnd's anonymous resident memory before a burst of large calls, right after it, and 60 seconds later. Prints
# a line of JSON.
#   bench/burst.sh [BUILD_FOLDER]
# Eight concurrent callers send calls of 8 heads, n = 8192, d = 64, fp32 (48 MiB sent, 16 MiB back) for five seconds.
set -euo pipefail
build=${1:-$(cd "$(dirname "$0")/.." && pwd)/build}
folder=$(mktemp -d)
server=''
trap 'kill $server 2>/dev/null || true; rm -rf "$folder"' EXIT
"$build/server/attnd" --listen="unix:$folder/attnd.sock" --log_level=warn &
server=$!
for _ in $(seq 100); do [ -S "$folder/attnd.sock" ] && break; sleep 0.05; done
sleep 1
resident() { awk '/^RssAnon:/ { printf "%d", $2 / 1024 }' "/proc/$server/status"; }
before=$(resident)
callers=()
for i in $(seq 8); do
  "$build/bench/attnd_server_race" --shape=1,8,8192,64 --seconds=5 --rounds=1 "unix:$folder/attnd.sock" >"$folder/$i" &
  callers+=($!)
done
for caller in "${callers[@]}"; do wait "$caller"; done
after=$(resident)
sleep 60
printf '{"before_mib": %d, "after_mib": %d, "after_60_s_mib": %d}\n' "$before" "$after" "$(resident)"
