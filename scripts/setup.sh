#!/usr/bin/env bash
# Installs the missing ones of the Debian packages that attnd is built with.
#   scripts/setup.sh [--LIST...]    --lint, --clang…: also those of scripts/packages-LIST.txt
# Needs root or sudo if a package is missing. Asks no questions.
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "$0")/lib.sh"

lists=("$root/scripts/packages.txt")
for option in "$@"; do
  list=$root/scripts/packages-${option#--}.txt
  { [[ $option = --?* ]] && [ -f "$list" ]; } || { sed -n '2,4p' "$0" >&2; exit 2; }
  lists+=("$list")
done

mapfile -t wanted < <(cat "${lists[@]}" | sed 's/#.*//' | tr -s ' \n' '\n' | sed '/^$/d')
command -v dpkg-query >/dev/null || fail "this is no Debian system. attnd needs what these packages hold: ${wanted[*]}"

installed() { [ "$(dpkg-query -W -f '${db:Status-Status}\n' "$1" 2>/dev/null | head -n 1)" = installed ]; }
missing=()
for package in "${wanted[@]}"; do installed "$package" || missing+=("$package"); done
[ ${#missing[@]} -gt 0 ] || exit 0

as_root=()
if [ "$(id -u)" != 0 ]; then
  command -v sudo >/dev/null || fail "not root and no sudo. Ask somebody who is to run: apt-get install ${missing[*]}"
  as_root=(sudo)
  sudo -v
fi
install_missing() {
  "${as_root[@]}" apt-get update
  "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "${missing[@]}"
}
step "Installing ${#missing[@]} packages" "${TMPDIR:-/tmp}/attnd-setup.$(id -u).log" install_missing
