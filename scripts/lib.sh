# Shared by the scripts in this folder; sourced, not run. Callers have set -euo pipefail.
# shellcheck shell=bash
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

if [ -t 1 ] && [ "${TERM:-dumb}" != dumb ]; then bold=$'\e[1m' plain=$'\e[0m' live=1; else bold='' plain='' live=''; fi

heading() { printf '\n%s%s%s\n' "$bold" "$*" "$plain"; }
fail() { printf 'error: %s\n' "$*" >&2; exit 1; }

# step TEXT LOG COMMAND...  Runs a command quietly and prints one line with its time. On a terminal the line shows the
# log's last line while the command runs. If it fails, prints the end of the log and exits with the command's status.
step() {
  local text=$1 log=$2 start=$SECONDS watcher='' status=0
  shift 2
  mkdir -p "$(dirname "$log")"
  : >"$log"
  if [ -n "$live" ]; then
    watch_log "$text" "$log" &
    watcher=$!
  fi
  "$@" >"$log" 2>&1 </dev/null || status=$?
  if [ -n "$watcher" ]; then
    kill "$watcher" 2>/dev/null || true
    wait "$watcher" 2>/dev/null || true
    printf '\r\e[K'
  fi
  if [ "$status" != 0 ]; then
    printf '%s … failed after %d s. From %s:\n\n' "$text" $((SECONDS - start)) "$log"
    grep -m 1 -A 40 '^FAILED: ' "$log" || tail -n 40 "$log" # ninja goes on for a while after a failure
    exit "$status"
  fi
  printf '%s … done (%d s)\n' "$text" $((SECONDS - start))
}

# Shows the last line of a log in place, until it is killed or the script has exited.
watch_log() {
  while kill -0 $$ 2>/dev/null; do
    printf '\r\e[K%s … %s' "$1" "$(tail -c 300 "$2" | tail -n 1 | tr -cd '[:print:]' | cut -c 1-60)"
    sleep 0.2
  done
}

# await_address LOG PID  Prints the loopback address that a starting attnd logs; fails if attnd exits, or logs none within
# ten seconds.
await_address() {
  local log=$1 pid=$2 address=''
  for _ in $(seq 200); do
    address=$(grep -oE '127\.0\.0\.1:[1-9][0-9]*' "$log" | head -n 1) || true
    [ -z "$address" ] && kill -0 "$pid" 2>/dev/null || break
    sleep 0.05
  done
  [ -n "$address" ] && echo "$address"
}

# build_attnd PRESET BUILD_DIR [TARGET...] [-- CMAKE_ARGUMENT...]  Logs go to BUILD_DIR/logs.
build_attnd() {
  local preset=$1 build=$2 logs=$2/logs targets=() cache=()
  shift 2
  while [ $# -gt 0 ] && [ "$1" != -- ]; do targets+=(--target "$1"); shift; done
  [ $# -eq 0 ] || shift
  # ccache makes paths below the root relative, so that build folders and checkouts share objects.
  export CCACHE_BASEDIR=$root CCACHE_NOHASHDIR=1
  # ccache needs this for precompiled headers (cmake/AttndTest.cmake).
  export CCACHE_SLOPPINESS=pch_defines,time_macros,include_file_mtime,include_file_ctime
  command -v ccache >/dev/null && cache=(-DCMAKE_CXX_COMPILER_LAUNCHER=ccache)
  step "Configuring ($preset)" "$logs/configure.log" cmake --preset "$preset" -S "$root" -B "$build" "${cache[@]}" "$@"
  step "Building ($preset; some minutes the first time)" "$logs/build.log" cmake --build "$build" "${targets[@]}"
}

# python_venv NAME REQUIREMENTS [PIP_ARGUMENT...]  Prints build/NAME, a virtual environment with the packages of the file
# REQUIREMENTS; rebuilds it when the file changes. $PYTHON is the interpreter, by default python3. The log is in
# build/logs.
python_venv() {
  local name=$1 requirements=$2 folder=$root/build/$1 log=$root/build/logs/$1.log
  shift 2
  if ! cmp -s "$requirements" "$folder/requirements.txt"; then
    "${PYTHON:-python3}" -c 'import ensurepip, venv' 2>/dev/null || "$root/scripts/setup.sh" --lint >&2
    make_venv() {
      rm -rf "$folder"
      "${PYTHON:-python3}" -m venv "$folder"
      "$folder/bin/python" -m pip install --disable-pip-version-check -r "$requirements" "$@"
      cp "$requirements" "$folder/requirements.txt"
    }
    step "Making the Python environment $name" "$log" make_venv "$@" >&2
  fi
  echo "$folder"
}
