#!/usr/bin/env bash
# run.sh ADDRESS MODEL INPUT OUTPUT     needs cargo and protoc
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
cargo build --quiet --release --manifest-path "$here/Cargo.toml" --target-dir "$here/target"
exec "$here/target/release/attend" "$@"
