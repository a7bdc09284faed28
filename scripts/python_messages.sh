#!/usr/bin/env bash
# Generates the Python package's messages (client/python/src/attnd/v1) from proto/attnd/v1 with protoc 3.21, the oldest whose
# code every protobuf from 3.20 on can load. Refuses any other protoc.
#   scripts/python_messages.sh            writes them
#   scripts/python_messages.sh --check    changes nothing; fails and shows differences. Exit code 77: another protoc
# PROTOC is the compiler, by default the one on PATH.
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "$0")/lib.sh"

case ${1:-} in '' | --check) ;; *) sed -n '2,6p' "$0" >&2; exit 2 ;; esac
protoc=${PROTOC:-protoc}
version=$("$protoc" --version)
case $version in
  'libprotoc 3.21.'*) ;;
  *)
    echo "the messages of the Python package are not looked at: they need protoc 3.21, this is $version" >&2
    exit 77
    ;;
esac

made=$(mktemp -d)
trap 'rm -rf "$made"' EXIT
committed=$root/client/python/src/attnd/v1
(cd "$root/proto" && "$protoc" -I . --python_out="$made" --pyi_out="$made" attnd/v1/*.proto)
cp "$committed/__init__.py" "$made/attnd/v1/"
if [ "${1:-}" = --check ]; then
  diff -ru --exclude=__pycache__ "$committed" "$made/attnd/v1" ||
    fail "client/python/src/attnd/v1 is not what protoc makes of proto/attnd/v1: scripts/python_messages.sh"
  echo "client/python/src/attnd/v1: as protoc makes it"
else
  rm -f "$committed"/*_pb2.py*
  cp "$made"/attnd/v1/* "$committed/"
fi
