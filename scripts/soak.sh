#!/usr/bin/env bash
# Builds attnd, puts honest and hostile load on it for an hour, and fails if an answer is wrong, a call ends in the wrong
# way, or the server's memory, descriptors or threads grow (tests/soak/growth.py has the bounds).
#   scripts/soak.sh [MINUTES]      default 60, at least 2
# Honest load: from single tokens to batches of 4096 rows in pieces, over TCP and over a Unix socket with shared memory, new
# connections, models that are loaded, uploaded and unloaded, refused calls, cancellations and deadlines. Hostile load
# (tests/soak/hostile.py): results that nobody reads, messages that do not end, resets, headers and compressed messages
# that are too large, one attack after another, from an address of their own.
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "$0")/lib.sh"
cd "$root"

minutes=${1:-60}
[[ $minutes =~ ^[0-9]+$ ]] && [ "$minutes" -ge 2 ] || { sed -n '2,8p' "$0" >&2; exit 2; }
scripts/setup.sh
build=$root/build
build_attnd release "$build" attnd soak_driver -- -DATTND_TESTS=ON
heading "Load for $minutes min, on $(nproc) CPUs"
"tests/soak/run.sh" "$root" "$build" "$build/server/attnd" "$build/tests/soak/soak_driver" soak "$((60 * minutes))"
heading "What the server held ($(wc -l <build/soak/soak.csv) samples)"
python3 tests/soak/growth.py build/soak/soak.csv
