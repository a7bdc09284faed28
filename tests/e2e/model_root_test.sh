#!/bin/sh
# model_root_test.sh ATTND ATTNCTL GOLDEN_DIR
#
# Model roots as operators get them wrong: what the server says, how it exits, and what `attnctl models list` shows. The
# server runs as another user than the files' owner, as in a container. Only root can arrange that: otherwise the test is
# skipped (exit code 77).
set -u
attnd=$1 attnctl=$2 golden=$3
[ "$(id -u)" = 0 ] || exit 77
work=$(mktemp -d)
server=
failures=0
trap '[ -z "$server" ] || kill "$server"; rm -rf "$work"' EXIT
chmod 755 "$work"

fail() {
  echo "FAILED: $*"
  failures=$((failures + 1))
}
as_another() { setpriv --reuid 65532 --regid 65532 --clear-groups "$@"; }

# refuses PATTERN FLAG...: the start fails with exit code 1 and says it.
refuses() {
  pattern=$1
  shift
  code=0
  as_another timeout 20 "$attnd" --listen=127.0.0.1:0 "$@" >"$work/log" 2>&1 || code=$?
  [ "$code" = 1 ] || fail "attnd $*: expected exit code 1, got $code"
  grep -qF -- "$pattern" "$work/log" || { fail "attnd $*: expected: $pattern"; cat "$work/log"; }
}

# lists PATTERN...: a server with the root $root starts, and `attnctl models list` prints each.
lists() {
  : >"$work/log"  # the address of the server before this one
  # exec: $! is the process that passes signals on to the server, and ends it if nobody does.
  (exec timeout -k 5 60 setpriv --reuid 65532 --regid 65532 --clear-groups "$attnd" --listen=127.0.0.1:0 "--model_root=$root" \
    >"$work/log" 2>&1) &
  server=$!
  until address=$(sed -n 's/.* listens on \([^ ]*\) .*/\1/p' "$work/log") && [ -n "$address" ]; do
    kill -0 "$server" || { fail "no start with $root"; cat "$work/log"; server=; return; }
  done
  "$attnctl" --server "$address" models list >"$work/list" || fail "models list of $root"
  "$attnctl" --server "$address" health >/dev/null || fail "a server whose models have failed in part is healthy"
  for pattern; do grep -qF -- "$pattern" "$work/list" || { fail "$root: expected: $pattern"; cat "$work/list"; }; done
  "$attnctl" --server "$address" models list --json >"$work/json" || fail "models list --json of $root"
  kill "$server"
  wait "$server"
  server=
}

root=$work/root
mkdir "$root"
for name in good locked closed; do cp -r "$golden/checkpoints/t5_fp32" "$root/$name"; done
chmod 600 "$root/locked/model.safetensors"
chmod 700 "$root/closed"
denied='belongs to uid 0 (root) with mode'
lists 'good     1' "locked: model.safetensors: Permission denied: it $denied 0600, and this process runs as uid 65532" \
  "closed: Permission denied: it $denied 0700, and this process runs as uid 65532: chmod a+rx or chown it"
grep -q '"path": "locked"' "$work/json" || fail "--json names what was not loaded"
refuses '--strict_models: 2 of 3 models could not be loaded' "--model_root=$root" --strict_models
refuses "\"locked\": model.safetensors: Permission denied: it $denied 0600" "--model_root=$root" --strict_models

refuses "--model_root: $root/closed/: Permission denied: it $denied 0700" "--model_root=$root/closed/"
refuses "$root/closed/deeper: Permission denied: $root/closed $denied 0700" "--model_root=$root/closed/deeper"
chmod 744 "$root/closed"
refuses "--model_root: $root/closed: Permission denied: it $denied 0744" "--model_root=$root/closed"
chown 1234:567 "$root/closed"
refuses '(docker run --user 1234:567)' "--model_root=$root/closed"

mkdir "$work/empty"
mkfifo "$work/fifo"
ln -s nothing "$work/dangling"
ln -s circle "$work/circle"
refuses 'No such file or directory' "--model_root=$work/none"
refuses 'Not a directory' "--model_root=$root/good/model.safetensors"
refuses 'Not a directory' "--model_root=$work/fifo"
refuses 'a link to what is not there' "--model_root=$work/dangling"
refuses 'Too many levels of symbolic links' "--model_root=$work/circle"
refuses 'no model was loaded' "--model_root=$work/empty" --strict_models
root=$work/empty lists 't5-tiny'
grep -q "warning --model_root: no model was loaded from $work/empty" "$work/log" || fail "an empty root is warned of"
root=$work/root/good/ lists 'good     1'

# What is neither file nor folder is never opened.
mkdir "$work/odd"
mkfifo "$work/odd/fifo.json" "$work/odd/fifo"
mknod "$work/odd/terminal.gguf" c 5 0 || true
mkdir -m 700 "$work/odd/lost+found"
root=$work/odd lists 'fifo (fifo.json): expected a regular file or a folder'
grep -q 'lost+found' "$work/list" && fail "lost+found is no failed model"

# The Hub's cache.
repository=$work/hub/models--google--t5/
mkdir -p "$repository/snapshots/abc" "$repository/refs" "$repository/blobs"
for file in config.json model.safetensors; do
  cp "$golden/checkpoints/t5_fp32/$file" "$repository/blobs/$file"
  ln -s "../../blobs/$file" "$repository/snapshots/abc/$file"
done
printf abc >"$repository/refs/main"
for root in "$work/hub" "$repository" "$repository/snapshots/abc"; do lists 'google/t5  1'; done

[ "$failures" = 0 ] || exit 1
