#!/usr/bin/env bash
# Reports missing and unused includes, with include-what-you-use.
#   scripts/iwyu.sh [BUILD_DIR] [PATH_REGEX]     default: build-coverage (a build with Clang), the whole tree
# The report is build-iwyu/report.txt; exits with 1 if it names a file. scripts/iwyu_report.py documents what it leaves out.
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "$0")/lib.sh"

build=$(realpath -m "${1:-$root/build-coverage}")
pattern=${2:-'^(src|server|client|examples|bench|tests)/'}
out=$root/build-iwyu
command -v iwyu_tool >/dev/null || "$root/scripts/setup.sh" --nightly
cd "$root"
mkdir -p "$out"
if [ ! -f "$build/compile_commands.json" ]; then
  scripts/setup.sh --clang
  step "Configuring (coverage)" "$out/configure.log" cmake --preset coverage
  step "Generating code" "$out/build.log" cmake --build --preset coverage --target attnd_proto attnd_client_messages
fi
mapfile -t sources < <(grep -oE '"file": "[^"]+' "$build/compile_commands.json" | cut -c 10- | sort -u |
  sed -n "s#^$root/##p" | grep -E "$pattern" | grep -v '^build')
[ ${#sources[@]} -gt 0 ] || fail "nothing in $build/compile_commands.json matches $pattern"
# iwyu_tool's exit status reflects its suggestions, not whether it could run.
iwyu_tool -j "$(nproc)" -p "$build" "${sources[@]}" -- -Xiwyu --no_fwd_decls -Xiwyu --quoted_includes_first \
  -Xiwyu --max_line_length=200 -Xiwyu --mapping_file="$root/scripts/iwyu.imp" >"$out/raw.txt" 2>"$out/errors.txt" || true
echo "include-what-you-use: ${#sources[@]} files"
python3 scripts/iwyu_report.py "$root" "$out/raw.txt" | tee "$out/report.txt"
exit "${PIPESTATUS[0]}"
