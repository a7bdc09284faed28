# shellcheck shell=bash
example node attend.js
echo "version: grpc-js $(sed -n 's/.*grpc-js": "\([0-9.]*\)".*/\1/p' "$TREE/examples/clients/node/package.json")"
