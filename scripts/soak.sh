#!/usr/bin/env bash
# Builds attnd, puts mixed load on it for an hour, and fails if an answer is wrong, a call ends as it should not, or the
# server's memory, descriptors or threads grow (tests/soak/growth.py has the bounds).
#   scripts/soak.sh [SECONDS]      3600 unless told; 90 at least
# The load: single tokens to batches of 4096 rows in pieces, over TCP and over a Unix socket with shared memory, new
# connections, models that are loaded, uploaded and unloaded, refused calls, cancellations and deadlines.
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "$0")/lib.sh"
cd "$root"

seconds=${1:-3600}
[[ $seconds =~ ^[0-9]+$ ]] && [ "$seconds" -ge 90 ] || { sed -n '2,6p' "$0" >&2; exit 2; }
scripts/setup.sh
build=$root/build
build_attnd release "$build" attnd soak_driver -- -DATTND_TESTS=ON
heading "Load for $seconds s, on $(nproc) CPUs"
"tests/soak/run.sh" "$root" "$build" "$build/server/attnd" "$build/tests/soak/soak_driver" soak "$seconds"
heading "What the server held ($(wc -l <build/soak/soak.csv) samples)"
python3 tests/soak/growth.py build/soak/soak.csv
