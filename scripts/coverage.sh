#!/usr/bin/env bash
# Builds with Clang's coverage, runs all tests, and reports how many lines of each room they reach.
#   scripts/coverage.sh [--report]     --report: only reports on the existing profiles
# Writes build-coverage/coverage.md (the table) and build-coverage/uncovered.txt (every line that no test reaches). A
# process that is killed or aborts writes no profile: lines that it alone reached count as not reached.
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "$0")/lib.sh"
cd "$root"

build=$root/build-coverage
profiles=$build/profiles
case ${1:-} in
  '')
    scripts/setup.sh --clang
    rm -rf "$profiles"
    mkdir -p "$profiles"
    # Processes of one program merge their profiles into one of two files.
    export LLVM_PROFILE_FILE=$profiles/%2m.profraw
    # A program that uses the installed client would have to be built for coverage too.
    scripts/test.sh --preset coverage -E '^(client_install|install_page)_test$'
    ;;
  --report) ;;
  *) sed -n '2,5p' "$0" >&2; exit 2 ;;
esac

[ -n "$(ls "$profiles")" ] || fail "no profiles in $profiles: run scripts/coverage.sh"
llvm-profdata merge -sparse "$profiles"/*.profraw -o "$build/all.profdata"
objects=()
while read -r file; do
  if [[ $(readelf -S -W "$file" 2>/dev/null) == *__llvm_covmap* ]]; then objects+=(-object "$file"); fi
done < <(find "$build" -type f -executable -not -path '*/CMakeFiles/*' | sort)
# llvm-cov takes the first object without -object. Headers appear under the rooms' links in the build folder, which
# coverage_table.py resolves.
llvm-cov export -format=lcov -instr-profile "$build/all.profdata" "${objects[@]:1}" \
  -ignore-filename-regex='^/usr/|[.]pb[.]' >"$build/lines.lcov" 2>"$build/logs/llvm-cov.log"
python3 scripts/coverage_table.py "$root" "$build/lines.lcov" "$build/uncovered.txt" | tee "$build/coverage.md"
