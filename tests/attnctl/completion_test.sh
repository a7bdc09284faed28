#!/usr/bin/env bash
# completion_test.sh SHELL ATTND ATTNCTL GOLDEN_DIR
#
# The completion of attnctl in bash, zsh or fish, each asked by its own means: bash's function, zsh's line editor in a
# terminal, fish's `complete -C`. Ends with 77 if that shell is not installed. SHELL may also be `man`: the manual page
# through mandoc's lint and man.
set -u
shell=$1 attnd=$2 attnctl=$3 golden=$4
here=$(cd "$(dirname "$0")" && pwd)
needed=$shell
[ "$shell" = man ] && needed=mandoc
command -v "$needed" >/dev/null || { echo "left out: $needed is not installed (scripts/setup.sh --lint)"; exit 77; }
work=$(mktemp -d)
failures=0 server=
trap '[ -z "$server" ] || kill "$server"; rm -rf "$work"' EXIT
fail() { echo "FAILED: $*"; failures=$((failures + 1)); }

if [ "$shell" = man ]; then
  "$attnctl" manual >"$work/attnctl.1"
  # Long lines of the source are no fault of the page.
  mandoc -T lint -W style "$work/attnctl.1" | grep -vE 'longer than 80 bytes|missing date' >"$work/lint"
  [ ! -s "$work/lint" ] || { cat "$work/lint"; fail "mandoc finds faults"; }
  mandoc -T ascii "$work/attnctl.1" | sed 's/.\x08//g' >"$work/text"
  "$attnctl" help --json | python3 -c 'import json, sys
for command in json.load(sys.stdin)["commands"]:
    for flag in command["flags"]: print("--" + flag["name"])' | sort -u >"$work/flags"
  [ "$(wc -l <"$work/flags")" -gt 30 ] || fail "the program describes few flags"
  while read -r flag; do
    grep -qE -- "^ *$flag( |\$)" "$work/text" || fail "the page has no $flag"
  done <"$work/flags"
  grep -q 'attnctl attend --model t5-tiny --input layer.safetensors' "$work/text" || fail "the page has no example"
  [ "$failures" = 0 ] && echo "attnctl.1: all as expected"
  exit "$failures"
fi

mkdir "$work/bin"
# The program, but for two sessions that it says are open.
cat >"$work/bin/attnctl" <<PROGRAM
#!/bin/sh
case "\$*" in 'sessions list --ids '*) echo 12; echo 34 ;; *) exec "$(realpath "$attnctl")" "\$@" ;; esac
PROGRAM
chmod +x "$work/bin/attnctl"
export PATH=$work/bin:$PATH ATTND_SERVER="unix:$work/attnd.sock"
mkdir "$work/models"
cp -r "$golden/checkpoints/t5_fp32" "$work/models"
echo '{}' >"$work/models/broken.json"  # `models list` shows it, and it is no model to complete
"$attnd" "--listen=$ATTND_SERVER" "--model_root=$work/models" 2>"$work/log" &
server=$!
until attnctl info >/dev/null 2>&1; do
  kill -0 "$server" || { cat "$work/log"; exit 1; }
done
attnctl completion "$shell" >"$work/script"
touch "$work/tensors.safetensors"
cd "$work" || exit 1

# completed LINE: the words that the shell offers for the line's end, one a line.
completed() {
  case $shell in
    bash)
      # shellcheck disable=SC2016
      bash --norc -c 'source "$1"; eval "COMP_WORDS=($2)"; [[ $2 == *" " ]] && COMP_WORDS+=("")
        COMP_CWORD=$((${#COMP_WORDS[@]} - 1)); _attnctl; printf "%s\n" "${COMPREPLY[@]}"' - "$work/script" "${1//=/ = }" ;;
    zsh) timeout 60 zsh "$here/zsh_completes.zsh" "$work/script" "$1" | tr -d '\r\a' | tr -s '<> ' '\n' | sed 's/^--[a-z_]*=//' ;;
    fish) fish --no-config -c "source '$work/script'; complete -C '$1'" | cut -f1 | sed 's/^--[a-z_]*=//' ;;
  esac
}
# offers LINE WORD...: all of these.  lacks LINE WORD...: none of these.
offers() {
  local line=$1 word got
  shift
  got=$(completed "$line" 2>&1)
  for word in "$@"; do grep -qxF -- "$word" <<<"$got" || fail "$shell: '$line' offers no $word, but: $got"; done
}
lacks() {
  local line=$1 word got
  shift
  got=$(completed "$line" 2>&1)
  for word in "$@"; do ! grep -qxF -- "$word" <<<"$got" || fail "$shell: '$line' offers $word"; done
}

offers 'attnctl ' attend bias models sessions info health help
lacks 'attnctl ' load --mask
offers 'attnctl mod' models
offers 'attnctl models ' list show load reload unload upload
lacks 'attnctl models ' info models/list
offers 'attnctl help models ' list upload
offers 'attnctl sessions ' list show evict plan
lacks 'attnctl sessions ' load 12
offers 'attnctl sessions show ' 12 34
offers 'attnctl sessions evict 12 3' 34
lacks 'attnctl sessions evict ' book
lacks 'attnctl sessions list ' 12
offers 'attnctl sessions plan --' --heads --kv_heads --budget --max_source_tokens
lacks 'attnctl sessions plan --' --mask --names
offers 'attnctl sessions plan --dtype ' f32 f16 bf16
offers 'attnctl bias --mas' --mask
offers 'attnctl models list --js' --json
lacks 'attnctl models list --' --mask --lse
offers 'attnctl bias --mask ' causal none
offers 'attnctl bias --mask=ca' causal
offers 'attnctl bias --format ' text svg json
offers 'attnctl models list --format ' text json
lacks 'attnctl models list --format ' svg
offers 'attnctl bias bo' book
offers 'attnctl bias ' compare book
lacks 'attnctl bias ' NAME not broken
offers 'attnctl bias compare t5_fp' t5_fp32
offers 'attnctl bias compare book t5_fp' t5_fp32
offers 'attnctl attend --model t5_fp' t5_fp32
offers 'attnctl models show --json bo' book
offers 'attnctl --timeout 5s models sho' show
offers 'attnctl attend --input tens' tensors.safetensors
offers 'attnctl models upload mine tens' tensors.safetensors
offers 'attnctl completion ' bash zsh fish
kill "$server" && wait "$server"
server=
lacks 'attnctl bias bo' book
[ "$failures" = 0 ] && echo "completion in $shell: all as expected"
exit "$failures"
