#!/usr/bin/env bash
# Runs clang-tidy (the checks in .clang-tidy) over the sources in a build's compile_commands.json, last changed first.
#   scripts/tidy.sh [--minutes N] [BUILD_DIR] [PATH_REGEX]     default: build; src, server, client and examples
# A file takes half a minute. --minutes: begins no file after N minutes, and prints how many files it checked.
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "$0")/lib.sh"

minutes=
if [ "${1:-}" = --minutes ]; then
  [[ ${2:-} =~ ^[0-9]+$ ]] || fail "--minutes: expected a whole number, got ${2:-nothing}"
  minutes=$2
  shift 2
fi
build=${1:-$root/build}
pattern=${2:-'^(src|server|client|examples)/'}
[ -f "$build/compile_commands.json" ] || fail "no $build/compile_commands.json: configure first (cmake --preset release)"
command -v clang-tidy >/dev/null || "$root/scripts/setup.sh" --lint
cd "$root"
python3 scripts/compile_commands.py "$build" "$build/each"
mapfile -t sources < <(grep -oE '"file": "[^"]+' "$build/each/compile_commands.json" | cut -c 10- | sort -u |
  sed -n "s#^$root/##p" | grep -E "$pattern" | grep -v '^build')
[ ${#sources[@]} -gt 0 ] || fail "nothing in $build/compile_commands.json matches $pattern"
# Order: uncommitted changes, then files changed by commits, newest first, then the rest.
mapfile -t sources < <({ git diff --name-only HEAD; git log --format= --name-only; } 2>/dev/null |
  awk 'NR == FNR { known[$0] = 1; left[NR] = $0; next } $0 in known { print; delete known[$0] }
       END { for (i = 1; i in left; i++) if (left[i] in known) print left[i] }' <(printf '%s\n' "${sources[@]}") -)

# $left has a line for each file that was skipped for lack of time.
left=$(mktemp)
trap 'rm -f "$left"' EXIT
end=${minutes:+$(($(date +%s) + minutes * 60))}
export build left end
one_file() {
  if [ -n "$end" ] && [ "$(date +%s)" -ge "$end" ]; then echo "$1" >>"$left"; return; fi
  clang-tidy -p "$build/each" --quiet --warnings-as-errors='*' "$1" 2>/dev/null
}
export -f one_file
printf '%s\0' "${sources[@]}" | xargs -0 -P "$(nproc)" -I '{}' bash -c 'one_file "$1"' _ '{}'
skipped=$(wc -l <"$left")
echo "clang-tidy: $((${#sources[@]} - skipped)) of ${#sources[@]} files${minutes:+, the last changed first, in $minutes minutes}"
