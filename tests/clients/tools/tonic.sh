# shellcheck shell=bash
example rust src/main.rs
echo "version: tonic $(sed -n 's/^tonic = "=\(.*\)"/\1/p' "$TREE/examples/clients/rust/Cargo.toml")"
