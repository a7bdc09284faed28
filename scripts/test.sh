#!/usr/bin/env bash
# Installs missing packages, builds attnd with all its tests, and runs them.
#   scripts/test.sh [--preset release|dev|asan|tsan] [--werror] [--engine | --client] [--build] [CTEST_ARGUMENT...]
# --engine builds only what needs no gRPC, in build-engine/; --client only the C++ library, in build-client/. --build builds
# without tests and benchmarks, in a folder of its own (build-alone/, build-engine-alone/), and runs nothing.
# For example: scripts/test.sh --preset asan -R bias
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "$0")/lib.sh"

preset=release
part=
options=(-DATTND_TESTS=ON)
build_only=
while [ $# -gt 0 ]; do
  case $1 in
    --preset) [ $# -ge 2 ] || fail "--preset needs a name"; preset=$2; shift 2 ;;
    --werror) options+=(-DATTND_WERROR=ON); shift ;;
    --engine) part=-engine options+=(-DATTND_SERVER=OFF -DATTND_CLIENT=OFF -DATTND_ATTNCTL=OFF); shift ;;
    --client) part=-client options+=(-DATTND_SERVER=OFF -DATTND_ATTNCTL=OFF -DATTND_BENCH=OFF); shift ;;
    --build) build_only=1 options+=(-DATTND_TESTS=OFF -DATTND_BENCH=OFF); shift ;;
    -h | --help) sed -n '2,6p' "$0"; exit 0 ;;
    *) break ;;
  esac
done
cd "$root"
lists=()
case $preset in asan | tsan | coverage) lists=(--clang) ;; esac
"$root/scripts/setup.sh" "${lists[@]}"
build=$root/build$part${build_only:+-alone}
[ "$preset" = release ] || build=$build-$preset
build_attnd "$preset" "$build" -- "${options[@]}"
[ -z "$build_only" ] || exit 0
# Lets an allocation that is too large fail as it does without a sanitizer.
export ASAN_OPTIONS=${ASAN_OPTIONS:-allocator_may_return_null=1}
# Makes undefined behaviour fail a test; by default it is only printed.
export UBSAN_OPTIONS=${UBSAN_OPTIONS:-halt_on_error=1:print_stacktrace=1}
ctest --test-dir "$build" --output-on-failure --no-tests=error --output-log "$build/logs/ctest.log" -j "$(nproc)" "$@"
