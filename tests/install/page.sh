#!/usr/bin/env bash
# Runs the blocks of docs/install.md one after the other, with a home whose name holds a space, and what they make.
#   tests/install/page.sh [--all] [BLOCK...]
# By default the blocks that need one build of the client; --all: every block, Docker's where there is a Docker. BLOCK:
# these alone.
# CXX is the compiler, and CMAKE_CXX_COMPILER_LAUNCHER may be ccache. No network is used but by Docker.
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
blocks=(client package pkg-config uninstall)
if [ "${1:-}" = --all ]; then
  shift
  blocks=(whole server client package fetched pkg-config shared uninstall)
  if command -v docker >/dev/null && docker info >/dev/null 2>&1; then blocks+=(docker); else echo "no Docker: its block is left out"; fi
fi
[ $# = 0 ] || blocks=("$@")

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export HOME="$work/a home"
mkdir "$HOME"
ln -s "$root" "$work/attnd"
python3 "$root/tests/install/page.py" "$root/docs/install.md" "$work"
cd "$work"

fail() {
  echo "FAILED: $*" >&2
  exit 1
}
# answers PROGRAM: it runs, and says that there is no server.
answers() {
  local code=0
  "$1" unix:///nonexistent/attnd.sock 2>said || code=$?
  { [ "$code" = 1 ] && grep -q UNAVAILABLE said; } || fail "$1: exit code $code: $(cat said)"
}

# What a client does not need is not there. OpenSSL is not among it: gRPC's own package asks for it.
hidden=$(printf -- '-DCMAKE_DISABLE_FIND_PACKAGE_%s=ON ' Eigen3 nlohmann_json GTest spdlog)
for block in "${blocks[@]}"; do
  echo "=== $block"
  case $block in
    # The hook of cmake's first call: the packages that are hidden.
    client | fetched) sed -i "1s|\$| $hidden|" "run/$block.sh" ;;
  esac
  started=$SECONDS
  bash -euo pipefail "run/$block.sh" >log 2>&1 || { cat log; fail "$block"; }
  echo "$((SECONDS - started)) s"
  case $block in
    client)
      test -f "$HOME/attnd-client/share/attnd/proto/attnd/v1/attention.proto" || fail "no .proto files"
      [ ! -e "$HOME/attnd-client/bin" ] || fail "a client alone has no programs"
      ;;
    package) answers hello/build/hello ;;
    fetched)
      answers fetched/build/hello
      built=$(find fetched/build -name '*.o' | grep -vE 'attnd_(client|tensor)|hello' || true)
      [ -z "$built" ] || fail "FetchContent builds more than the client: $built"
      ;;
    pkg-config)
      answers hello/hello
      answers hello/hello-static
      ! ldd hello/hello-static >/dev/null 2>&1 || fail "hello-static needs libraries"
      ;;
    shared)
      answers hello/build-shared/hello
      readelf -d hello/build-shared/hello | grep -q 'libattnd_client.so.0.1' || fail "hello is not linked to the shared library"
      library=$(find "$HOME/attnd-shared" -name 'libattnd_client.so.0.1')
      shown=$(nm -DC --defined-only "$library" | sed 's/^[0-9a-f]* . //' | grep -vE '^(vtable for )?attnd::[A-Z]' || true)
      [ -z "$shown" ] || fail "the shared library shows more than the public interface: $shown"
      readelf -d "$library" | grep -q NODELETE || fail "the shared library may be unloaded"
      ;;
    uninstall) [ -z "$(find "$HOME/attnd-client" -type f)" ] || fail "files are left: $(find "$HOME/attnd-client" -type f)" ;;
  esac
done
