#!/usr/bin/env bash
# Builds attnd and runs its tests with the next gRPC, protobuf and compiler: Debian sid, with gRPC and protobuf from
# experimental, in its own root under build-experimental/. Needs root and mmdebstrap.
#   scripts/test-experimental.sh [CTEST_ARGUMENT...]
# Eigen is this machine's version. Warnings are not errors, because a newer compiler has new ones. The build continues after
# errors (ninja -k 0), and the tests that could be built run; the script then fails at the end. Logs are in
# build-experimental/logs.
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "$0")/lib.sh"
cd "$root"

command -v mmdebstrap >/dev/null || fail "no mmdebstrap: scripts/setup.sh --nightly"
[ "$(id -u)" = 0 ] || fail "not root"
# Only this script sees the mounts below; they disappear when it exits.
[ -n "${ATTND_UNSHARED:-}" ] || exec env ATTND_UNSHARED=1 unshare --mount --propagation private "$root/scripts/test-experimental.sh" "$@"
out=$root/build-experimental
system=$out/root
logs=$out/logs
mkdir -p "$logs"

if [ ! -e "$system/.complete" ]; then
  rm -rf "$system"
  # This machine's own Debian mirror, which may lag behind.
  mirror=$(apt-get indextargets --format '$(SITE)' 'Identifier: Packages' | awk '/\/debian$/ { found = $0 } END { print found }')
  next=(libgrpc++-dev protobuf-compiler-grpc libprotobuf-dev protobuf-compiler)
  mapfile -t others < <(sed 's/#.*//' scripts/packages.txt | tr -s ' \n' '\n' | sed '/^$/d' |
    grep -vxF -f <(printf '%s\n' "${next[@]}"))
  step "Making a root of Debian sid" "$logs/root.log" mmdebstrap --variant=apt --mode=root \
    --aptopt='APT::Install-Recommends "false"' --aptopt='Acquire::Check-Valid-Until "false"' \
    sid "$system" "deb $mirror sid main" "deb $mirror experimental main"
  cp /etc/resolv.conf "$system/etc/resolv.conf"
  inside_apt() { chroot "$system" env DEBIAN_FRONTEND=noninteractive apt-get -y "$@"; }
  step "Reading the lists of packages" "$logs/update.log" inside_apt update
  step "Installing sid's packages" "$logs/sid.log" inside_apt install "${others[@]}" git
  step "Installing experimental's gRPC and protobuf" "$logs/experimental.log" inside_apt install -t experimental "${next[@]}"
  # attnd requires Eigen 3.4; sid has 5.0, which does not fit.
  (cd "$out" && step "Fetching Eigen 3.4" "$logs/eigen.log" apt-get -o APT::Sandbox::User=root download libeigen3-dev)
  dpkg-deb -x "$out"/libeigen3-dev_*.deb "$system/opt/eigen"
  touch "$system/.complete"
fi
chroot "$system" dpkg-query -W -f '${Package} ${Version}\n' libgrpc++-dev libprotobuf-dev libabsl-dev libgtest-dev g++ cmake

bind() { mkdir -p "$system$2"; mount --bind "$1" "$system$2"; }
bind /proc /proc
bind /sys /sys
bind /dev /dev
bind /dev/shm /dev/shm
bind "$root" /src
build=/src/build-experimental/build
inside() { chroot "$system" env HOME=/root CCACHE_BASEDIR=/src CCACHE_DIR=/src/build-experimental/ccache "$@"; }
step "Configuring" "$logs/configure.log" inside cmake -S /src -B "$build" -G Ninja -DCMAKE_BUILD_TYPE=Release \
  -DCMAKE_CXX_COMPILER_LAUNCHER=ccache -DATTND_TESTS=ON \
  -DEigen3_DIR=/opt/eigen/usr/share/eigen3/cmake
status=0
step_build() { inside cmake --build "$build" -- -k 0; }
(step "Building" "$logs/build.log" step_build) || status=$?
grep -E '^FAILED: |error: |warning: ' "$logs/build.log" | sort | uniq -c | sort -rn | head -n 60 || true
inside ctest --test-dir "$build" --output-on-failure --no-tests=error \
  --output-log /src/build-experimental/logs/ctest.log -j "$(nproc)" "$@" || status=$?
exit "$status"
