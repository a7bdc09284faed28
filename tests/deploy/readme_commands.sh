#!/usr/bin/env bash
# Runs the commands under "From the command line" in README.md, against binaries that are built already and at a Unix socket.
#   tests/deploy/readme_commands.sh ROOT ATTND ATTNCTL
set -euo pipefail
root=$1 attnd=$2 attnctl=$3
work=$(mktemp -d)
trap 'kill "$(cat "$work/pid" 2>/dev/null)" 2>/dev/null || true; rm -rf "$work"' EXIT
mkdir "$work/bin"
ln -s "$attnd" "$work/bin/attnd"
ln -s "$attnctl" "$work/bin/attnctl"
ln -s "$root/tests" "$work/tests"

# commands FILE: the indented lines of the section, with the address and the folder of binaries replaced.
commands() {
  sed -n '/^## From the command line/,/^## /s/^    //p' "$1" | sed -e "s|127\.0\.0\.1:50051 &|unix:$work/s \& echo \$! >$work/pid;|" \
    -e "s|^PATH=.*|PATH=\"$work/bin:\$PATH\"|"
}
commands "$root/README.md" >"$work/run.sh"
[ "$(grep -cE '^ *(attnd|attnctl) ' "$work/run.sh")" -ge 6 ] || { echo "README.md: the commands were not found"; exit 1; }
cd "$work"
ATTND_SERVER=unix:$work/s bash -euo pipefail run.sh
[ -s out.safetensors ] && [ -s heads.svg ]
