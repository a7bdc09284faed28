#!/usr/bin/env bash
# Builds the fuzz targets with Clang's libFuzzer and the address and undefined behaviour sanitizers, and runs each from its
# corpus. Fails if one finds a fault; build-fuzz/found/NAME then has the input.
#   scripts/fuzz.sh [SECONDS [NAME...]]      default: 180 seconds for each target; NAME is picture, upload, ...
# After fixing a fault, add its input to tests/fuzz/NAME_corpus, which ordinary tests run.
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "$0")/lib.sh"
cd "$root"

seconds=${1:-180}
[[ $seconds =~ ^[0-9]+$ ]] || { sed -n '2,6p' "$0" >&2; exit 2; }
[ $# = 0 ] || shift
if [ $# = 0 ]; then
  mapfile -t targets < <(cd tests/fuzz && printf '%s\n' *_corpus | sed 's/_corpus$//')
  set -- "${targets[@]}"
fi
scripts/setup.sh --clang
build=$root/build-fuzz
cmake -S "$root" -B "$build" -G Ninja -DCMAKE_CXX_COMPILER=clang++ -DCMAKE_BUILD_TYPE=None -DCMAKE_CXX_FLAGS=-O1 \
  -DATTND_FUZZ=ON -DATTND_SANITIZE=address,undefined -DATTND_BENCH=OFF >"$build.log" 2>&1 || { cat "$build.log"; exit 1; }
cmake --build "$build" --target "${@/#/fuzz_}"
failed=0
for name in "$@"; do
  heading "$name, $seconds s"
  mkdir -p "$build/found/$name" "$build/grown/$name"
  "$build/tests/fuzz/fuzz_$name" -max_total_time="$seconds" -timeout=10 -rss_limit_mb=2048 -max_len=4096 -print_final_stats=1 \
    -artifact_prefix="$build/found/$name/" "$build/grown/$name" "tests/fuzz/${name}_corpus" 2>&1 | tail -n 30 |
    tee "$build/$name.log" || failed=$((failed + 1))
done
[ "$failed" = 0 ] || fail "$failed of $# fuzz targets found a fault"
