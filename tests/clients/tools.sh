# What the files in tools/ are made of; sourced. run.sh sets ADDRESS, INPUT, REFERENCE, EXPECTED, REQUEST, CACHE, ROOT, TREE,
# CLIENTS and, for each tool, OUTPUT and SCRATCH. A tool fails if its file does, and prints its version as "version: …".
# shellcheck shell=bash

UNKNOWN='model: expected a loaded model, got "no-such"'

# go_tool PACKAGE@VERSION  Installs a program into the cache.
go_tool() { GOBIN=$CACHE/bin go install "$1"; }

# python_tools REQUIREMENT...  Sets VENV to a virtual environment that holds at least these.
python_tools() {
  VENV=$CACHE/python
  [ -x "$VENV/bin/python" ] || "${PYTHON:-python3}" -m venv "$VENV"
  "$VENV/bin/python" -m pip install --quiet --disable-pip-version-check "$@"
}

# node_tools PACKAGE@VERSION...  Installs into a folder beside the tools' files; sets NODE to it.
node_tools() {
  NODE=$CLIENTS
  (cd "$NODE" && npm install --silent --no-save --no-audit --no-fund "$@")
}

right() { "$CACHE/python/bin/python" "$CLIENTS/reference.py" check "$REFERENCE" "$1"; }

# refused PATTERN... -- COMMAND...  The command must fail, and say each of the patterns.
refused() {
  local patterns=() log=$SCRATCH/refused.log pattern
  while [ "$1" != -- ]; do patterns+=("$1"); shift; done
  shift
  if "$@" >"$log" 2>&1; then
    cat "$log"
    echo "error: this passed, and was to fail: $*"
    return 1
  fi
  cat "$log"
  for pattern in "${patterns[@]}"; do
    grep -qiE -- "$pattern" "$log" || { echo "error: the output has no $pattern: $*"; return 1; }
  done
}

# example FOLDER [SOURCE]  A program of examples/clients: computes what it should; says what is wrong with an unknown
# model; and, with the limit of 4 MiB put back in SOURCE, cannot receive the reply.
example() {
  local run=$TREE/examples/clients/$1/run.sh source=${2:+$TREE/examples/clients/$1/$2}
  rm -f "$OUTPUT"
  "$run" "$ADDRESS" t5-tiny "$INPUT" "$OUTPUT"
  right "$OUTPUT"
  refused 'not_?found' "$UNKNOWN" 'field"?:? "?model' -- "$run" "$ADDRESS" no-such "$INPUT" "$OUTPUT.none"
  [ -n "$source" ] || return 0
  grep -q '64 *<< *20' "$source"
  cp "$source" "$SCRATCH/source"
  sed 's/64 *<< *20/4 << 20/' "$SCRATCH/source" >"$source"
  refused 'resource_?exhausted|out_?of_?range' -- "$run" "$ADDRESS" t5-tiny "$INPUT" "$OUTPUT.none" || return 1
  cp "$SCRATCH/source" "$source"
}
