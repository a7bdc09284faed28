#!/usr/bin/env bash
# Runs the Python package's tests on Debian's Python 3.9, 3.11, 3.13 and newest, each in a root under build-python/. The
# rows vary grpcio, protobuf and numpy: the oldest and newest that have wheels, some in between, and Debian's own. One
# row adds torch and JAX (gigabytes). Needs root, mmdebstrap and the network.
#   scripts/python_matrix.sh [SUITE...]     bullseye bookworm trixie sid
# Uses this machine's binaries, with copies of their libraries. The table is build-python/results.md; logs are beside it.
# A row that fails does not end the run.
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "$0")/lib.sh"
cd "$root"

# Each row: SUITE ROW REQUIREMENT... The "oldest" rows have the first versions with a wheel for that Python. For Python
# newer than 3.10, protobuf 3.20 has a wheel in pure Python only.
rows=(
  "bullseye oldest  grpcio==1.51.1 protobuf==3.20.3  numpy==1.23.0"
  "bullseye newest  grpcio         protobuf          numpy"
  "bookworm Debian"
  "bookworm oldest  grpcio==1.51.1 protobuf==3.20.3  numpy==1.23.2"
  "bookworm third   grpcio==1.60.2 protobuf==4.25.8  numpy==1.26.4"
  "bookworm second  grpcio==1.70.0 protobuf==5.29.5  numpy==2.2.6"
  "bookworm last    grpcio==1.76.0 protobuf==6.33.0  numpy==2.3.5"
  "bookworm newest  grpcio         protobuf          numpy"
  "bookworm arrays  grpcio         protobuf          numpy         ml_dtypes jax torch"
  "trixie   Debian"
  "trixie   oldest  grpcio==1.66.2 protobuf==3.20.3  numpy==2.1.0"
  "trixie   newest  grpcio         protobuf          numpy         uvloop"
  "sid      Debian"
  "sid      oldest  grpcio==1.75.1 protobuf==3.20.3  numpy==2.3.3"
  "sid      newest  grpcio         protobuf          numpy         ml_dtypes"
)
[ $# -gt 0 ] || set -- bullseye bookworm trixie sid
case " $* " in *' -'*) sed -n '2,7p' "$0" >&2; exit 2 ;; esac
command -v mmdebstrap >/dev/null || fail "no mmdebstrap: scripts/setup.sh --nightly"
[ "$(id -u)" = 0 ] || fail "not root"
# Only this script sees the mounts below; they disappear when it exits.
[ -n "${ATTND_UNSHARED:-}" ] ||
  exec env ATTND_UNSHARED=1 unshare --mount --propagation private "$root/scripts/python_matrix.sh" "$@"

out=$root/build-python
logs=$out/logs
mkdir -p "$logs"
build_attnd release "$root/build" attnd attnctl

# Makes the binaries run in any root: they bring their own loader and libraries.
carry_binaries() {
  rm -rf "$out/binaries"
  mkdir -p "$out/binaries/lib" "$out/binaries/real"
  local binary name
  for binary in "$root/build/server/attnd" "$root/build/client/attnctl"; do
    name=$(basename "$binary")
    [ -f "$binary" ] || binary=$binary/$name
    cp "$binary" "$out/binaries/real/"
    ldd "$binary" | grep -oE '/[^ ]+' | sort -u | xargs -I{} cp -L {} "$out/binaries/lib/"
    printf '#!/bin/sh\nexec /binaries/lib/%s --library-path /binaries/lib /binaries/real/%s "$@"\n' \
      "$(basename "$(ldd "$binary" | grep -oE '/[^ ]*ld-linux[^ ]*')")" "$name" >"$out/binaries/$name"
    chmod +x "$out/binaries/$name"
  done
}
carry_binaries

# Copies what the tests read, so that it stays the same for all rows.
sources=$out/src
rm -rf "$sources"
mkdir -p "$sources/client" "$sources/tests" "$sources/examples"
cp -r client/python "$sources/client/"
cp -r tests/golden "$sources/tests/"
cp -r examples/python "$sources/examples/"

make_root() {
  local suite=$1 system=$out/$1 mirror packages=python3,python3-venv,ca-certificates
  [ "$suite" = bullseye ] || packages+=,python3-grpcio,python3-protobuf,python3-numpy,python3-pytest
  mirror=$(apt-get indextargets --format '$(SITE)' 'Identifier: Packages' | awk '/\/debian$/ { found = $0 } END { print found }')
  rm -rf "$system"
  mmdebstrap --variant=apt --mode=root --include="$packages" --aptopt='APT::Install-Recommends "false"' \
    --aptopt='Acquire::Check-Valid-Until "false"' "$suite" "$system" "deb $mirror $suite main"
  cp -L /etc/resolv.conf "$system/etc/resolv.conf"
  printf '127.0.0.1 localhost\n::1 localhost\n' >"$system/etc/hosts"
  cp -L /etc/ssl/certs/ca-certificates.crt "$system/etc/ssl/certs/ca-certificates.crt"
  [ ! -e /etc/pip.conf ] || cp -L /etc/pip.conf "$system/etc/pip.conf"
  touch "$system/.complete"
}

bind() { mkdir -p "$2"; mount --bind "$1" "$2"; }
# inside SUITE COMMAND...  Runs a command in a suite's root.
inside() {
  local suite=$1
  shift
  chroot "$out/$suite" env -u PYTHONPATH PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root "$@"
}

# run_row SUITE ROW REQUIREMENT...  Runs the tests. The result is in the last lines of the log.
run_row() {
  local suite=$1 row=$2 python=/opt/$2/bin/python
  shift 2
  if [ "$row" = Debian ]; then
    python=/usr/bin/python3
  else
    inside "$suite" rm -rf "/opt/$row"
    inside "$suite" python3 -m venv "/opt/$row"
    inside "$suite" "$python" -m pip install --only-binary :all: "$@" pytest
    # Checks that this version of pip can install the package. The tests below import the sources instead.
    rm -rf "$out/$suite/tmp/attnd"
    cp -r "$sources/client/python" "$out/$suite/tmp/attnd"
    inside "$suite" "$python" -m pip install --no-deps /tmp/attnd
    inside "$suite" "$python" -c 'import attnd.v1.local_pb2; assert "site-packages" in attnd.__file__, attnd.__file__'
  fi
  inside "$suite" "$python" -c '
import platform, grpc, google.protobuf, numpy
from google.protobuf.internal import api_implementation
print("versions: |", platform.python_version(), "|", grpc.__version__, "|", google.protobuf.__version__,
      "(" + api_implementation.Type() + ") |", numpy.__version__)'
  # grpcio 1.51 sometimes hangs forever in os.fork(), even without attnd. On a loaded machine, one of ten programs that
  # fork three times hangs (1.51.1, Python 3.11).
  local without=() settings=()
  case $suite-$row in
    bullseye-oldest | bookworm-oldest | *-Debian) without=(-k "not fork") ;;
  esac
  # Python 3.9's subprocess forks. Under grpcio 1.80 a child sometimes aborts between fork and exec ("epoll_wait error:
  # Bad file descriptor"); this setting prevents it.
  case $suite-$row in bullseye-newest) settings=(GRPC_ENABLE_FORK_SUPPORT=0) ;; esac
  inside "$suite" env "${settings[@]}" ATTND_BINARY=/binaries/attnd ATTNCTL_BINARY=/binaries/attnctl bash -c \
    'cd /src/client/python && exec "$@"' tests "$python" -B -m pytest -q -p no:cacheprovider -W default -W error:::attnd tests "${without[@]}"
}

# Runs the rows of one Debian suite and writes SUITE.md.
run_suite() {
  local suite=$1 results=$out/$1.md failed=0 line row log
  : >"$results"
  if [ ! -e "$out/$suite/.complete" ]; then
    (step "Making a root of Debian $suite" "$logs/$suite-root.log" make_root "$suite") ||
      { printf '| %s | | | | | | no root |\n' "$suite" >>"$results"; return 1; }
  fi
  for path in proc sys dev dev/shm; do bind "/$path" "$out/$suite/$path"; done
  bind "$sources" "$out/$suite/src"
  bind "$out/binaries" "$out/$suite/binaries"
  for line in "${rows[@]}"; do
    read -r -a row <<<"$line"
    [ "${row[0]}" = "$suite" ] || continue
    log=$logs/$suite-${row[1]}.log
    (step "Debian $suite, ${row[1]}" "$log" run_row "${row[@]}") || failed=1
    printf '| %s | %s %s | %s |\n' "$suite" "${row[1]}" "$(sed -n 's/^versions: //p' "$log")" \
      "$(grep -E '^[0-9]+ (passed|failed|error)|^no tests|^ERROR' "$log" | tail -n 1 | tr -d '|')" >>"$results"
  done
  return "$failed"
}

# The suites run in parallel, because the tests mostly wait.
live='' # the steps' lines would overwrite each other
running=()
for suite in "$@"; do
  run_suite "$suite" &
  running+=($!)
done
failed=0
for suite in "${running[@]}"; do wait "$suite" || failed=1; done
results=$out/results.md
printf '| Debian | | Python | grpcio | protobuf | numpy | tests |\n|---|---|---|---|---|---|---|\n' >"$results"
for suite in "$@"; do cat "$out/$suite.md" >>"$results"; done
cat "$results"
exit "$failed"
