#!/usr/bin/env bash
# Formats the C++ sources with clang-format.
#   scripts/format.sh            rewrites them
#   scripts/format.sh --check    changes nothing; fails and lists the lines that differ
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "$0")/lib.sh"

mode=(-i)
case ${1:-} in
  '') ;;
  --check) mode=(--dry-run --Werror) ;;
  *) sed -n '2,4p' "$0" >&2; exit 2 ;;
esac
command -v clang-format >/dev/null || "$root/scripts/setup.sh" --lint
cd "$root"
mapfile -t sources < <(find src server client proto cmake tests bench examples -name '*.cc' -o -name '*.h' 2>/dev/null | sort)
clang-format "${mode[@]}" "${sources[@]}"
echo "clang-format: ${#sources[@]} files"
