#!/bin/sh
# install_test.sh CMAKE BUILD_DIR CONSUMER_DIR CXX LIBDIR
#
# Installs the client from BUILD_DIR into a folder of its own, moves that folder (a package is built in one place and
# used in another), and builds and runs the consumer against it, once with CMake and once with pkg-config.
set -eu
cmake=$1 build=$2 consumer=$3 cxx=$4 libdir=$5
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

"$cmake" --install "$build" --component client --prefix "$work/staged" >/dev/null
mv "$work/staged" "$work/prefix"
test -f "$work/prefix/share/attnd/proto/attnd/v1/attention.proto"
if grep -rlE "#include.*(google/protobuf|grpc|\.pb\.h)" "$work/prefix/include"; then
  echo "these public headers include protobuf or gRPC" >&2
  exit 1
fi

"$cmake" -S "$consumer" -B "$work/build" -G Ninja -DCMAKE_PREFIX_PATH="$work/prefix" -DCMAKE_CXX_COMPILER="$cxx" \
  -DCMAKE_CXX_STANDARD=17 -DATTND_PROTOS="$work/prefix/share/attnd/proto" >/dev/null
"$cmake" --build "$work/build"
"$work/build/consumer"
"$work/build/own_messages"

PKG_CONFIG_PATH=$work/prefix/$libdir/pkgconfig
export PKG_CONFIG_PATH
# shellcheck disable=SC2046
"$cxx" -std=c++17 -Wall -Wextra -Werror "$consumer/consumer.cc" -o "$work/consumer" \
  $(pkg-config --cflags --libs attnd-client gmock)
"$work/consumer"
