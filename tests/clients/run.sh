#!/usr/bin/env bash
# Tries attnd with clients and tools of other languages: the programs of examples/clients, and what is in tools/. Each
# computes n = 2048 (8 heads of 64) and is checked against a float64 reference, or against a checked output byte by byte;
# each is also refused something, and must say so as it should.
#   tests/clients/run.sh [NAME...]     all, or some: the names of the files in tools/
# Needs the network (PyPI, npm, crates, Maven, Go modules) the first time, and on PATH: Go 1.25, cargo 1.88, a JDK 17 with
# Maven, Node.js 20 with npm. What is installed stays in $ATTND_CLIENTS_CACHE, by default attnd-clients in the user's
# cache folder. ATTND_BINARY names a built attnd. Prints a table and exits with 1 if one fails; the logs are in
# build/logs/clients.
set -euo pipefail
exec </dev/null
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=scripts/lib.sh
source "$here/../../scripts/lib.sh"

mapfile -t all < <(cd "$here/tools" && ls -- *.sh | sed 's/\.sh$//')
[ $# -gt 0 ] || set -- "${all[@]}"
for name in "$@"; do
  [ -f "$here/tools/$name.sh" ] || { echo "no $name; there are: ${all[*]}" >&2; exit 2; }
done

attnd=${ATTND_BINARY:-}
if [ -z "$attnd" ]; then
  "$root/scripts/setup.sh" --clients
  build_attnd release "$root/build" attnd
  attnd=$root/build/server/attnd
fi
store=${ATTND_CLIENTS_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/attnd-clients}
logs=$root/build/logs/clients
mkdir -p "$store/bin" "$logs"
exec 9>"$store/lock"
flock 9
scratch=$(mktemp -d)
server=''
cleanup() {
  [ -z "$server" ] || { kill -TERM "$server" && wait "$server"; } || true
  rm -rf "$scratch"
}
trap cleanup EXIT

# A copy of what the programs are made of, beside what earlier runs built of it.
export ROOT=$root TREE=$store/tree CLIENTS=$store/tree/tests/clients
mkdir -p "$TREE"
(cd "$TREE" && find . -type f -not -path '*/.venv/*' -not -path '*/node_modules/*' -not -path '*/target/*' -delete)
(cd "$root" && git ls-files -z --cached --others --exclude-standard --deduplicate \
  proto examples/clients tests/clients bench/peers tests/golden/embedded) |
  while IFS= read -r -d '' file; do
    # Git also names what was removed and not yet committed.
    [ ! -e "$root/$file" ] || { cd "$root" && cp -p --parents "$file" "$TREE"; }
  done

"$attnd" --listen=127.0.0.1:0 2>"$logs/server.log" &
server=$!
ADDRESS=$(await_address "$logs/server.log" "$server") || fail "attnd does not start: $(tail -n 3 "$logs/server.log")"
export ADDRESS INPUT=$scratch/input.f32 EXPECTED=$scratch/expected.f32 REQUEST=$scratch/request.pb CACHE=$store
export PATH=$store/bin:$PATH

# Makes the input, the reference, and an output that is checked against it.
prepare() {
  python_tools numpy==2.4.6 grpcio==1.85.3 protobuf==7.36.2
  "$VENV/bin/python" "$here/reference.py" make "$INPUT" "$scratch/reference.npz"
  "$TREE/examples/clients/python/run.sh" "$ADDRESS" t5-tiny "$INPUT" "$EXPECTED"
  "$VENV/bin/python" "$here/reference.py" check "$scratch/reference.npz" "$EXPECTED"
  "$VENV/bin/python" "$here/reference.py" refuses "$scratch/reference.npz" "$EXPECTED"
  PYTHONPATH=$TREE/examples/clients/python/generated "$TREE/examples/clients/python/.venv/bin/python" \
    "$here/programs/request.py" t5-tiny "$INPUT" "$REQUEST"
}
export REFERENCE=$scratch/reference.npz
# shellcheck source=tests/clients/tools.sh
source "$here/tools.sh"
step "Making the input and the reference" "$logs/prepare.log" prepare

failed=0
table=$(printf '| tool | version | result |\n|---|---|---|')
for name in "$@"; do
  result=passed
  OUTPUT=$scratch/$name.f32 SCRATCH=$scratch bash -c 'set -euo pipefail; source "$1"; source "$2"' \
    tool "$here/tools.sh" "$here/tools/$name.sh" >"$logs/$name.log" 2>&1 || { result=FAILED; failed=$((failed + 1)); }
  version=$(sed -n 's/^version: //p' "$logs/$name.log" | tail -n 1)
  table+=$(printf '\n| %s | %s | %s |' "$name" "${version:-?}" "$result")
  printf '%s: %s\n' "$name" "$result"
  [ "$result" = passed ] || tail -n 20 "$logs/$name.log" | sed 's/^/    /'
done
printf '\n%s\n\n%d passed, %d failed\n' "$table" $(($# - failed)) "$failed"
exit $((failed > 0))
