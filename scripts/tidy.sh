#!/usr/bin/env bash
# Runs clang-tidy (the checks in .clang-tidy) over the sources that a build folder knows.
#   scripts/tidy.sh [BUILD_DIR] [PATH_REGEX]     build, and everything but generated code, unless told
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "$0")/lib.sh"

build=${1:-$root/build}
pattern=${2:-'^(src|server|client|examples)/'}
[ -f "$build/compile_commands.json" ] || fail "no $build/compile_commands.json: configure first (cmake --preset release)"
command -v clang-tidy >/dev/null || "$root/scripts/setup.sh" --lint
cd "$root"
mapfile -t sources < <(grep -oE '"file": "[^"]+' "$build/compile_commands.json" | cut -c 10- | sort -u |
  sed -n "s#^$root/##p" | grep -E "$pattern" | grep -v '^build')
[ ${#sources[@]} -gt 0 ] || fail "nothing in $build/compile_commands.json matches $pattern"
printf '%s\n' "${sources[@]}" | xargs -P "$(nproc)" -n 2 clang-tidy -p "$build" --quiet --warnings-as-errors='*' 2>/dev/null
echo "clang-tidy: ${#sources[@]} files"
