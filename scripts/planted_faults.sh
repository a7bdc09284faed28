#!/usr/bin/env bash
# Tells which of the faults listed in tests/faults/ the tests notice: builds a copy of the sources, in build-faults/, with all
# of them in it behind a switch, and runs the tests once for each fault, only those that reach it, until one fails.
#   scripts/planted_faults.sh [ROOM] [OPTION...]      all rooms take hours on two cores
# ROOM is a list's name without .toml. Options are those of `tests/faults/planted_faults.py run`: --fault NAME, --tests REGEX,
# --without REGEX, --random N, --again N, ... For example, while you write a test:
#   scripts/planted_faults.sh schedule --tests '^schedule_'
# BUILD_ONLY=TARGET,... builds only these targets.
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "$0")/lib.sh"

room=()
case ${1:-} in
  -h | --help) sed -n '2,8p' "$0"; exit 0 ;;
  '' | -*) ;;
  *) room=(--room "$1"); shift ;;
esac
cd "$root"
[ -n "${BUILD_ONLY:-}" ] || scripts/setup.sh
folder=$root/build-faults
mkdir -p "$folder"
tool=(python3 -B tests/faults/planted_faults.py)
exec 9>"$folder/lock"
flock 9 # another run's tests end first
"${tool[@]}" plant . "$folder/source"
IFS=, read -ra targets <<<"${BUILD_ONLY:-}"
root=$folder/source build_attnd release "$folder/build" "${targets[@]}" -- -DATTND_TESTS=ON -DATTND_BENCH=OFF
flock -s 9
exec "${tool[@]}" run "$folder/source" "$folder/build" --results "$folder/results.md" "${room[@]}" "$@"
