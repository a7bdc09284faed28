#!/usr/bin/env bash
# run.sh ADDRESS MODEL INPUT OUTPUT     needs Go and protoc
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
proto=$here/../../../proto
GOBIN=$here/bin go install google.golang.org/protobuf/cmd/protoc-gen-go@v1.36.12
GOBIN=$here/bin go install google.golang.org/grpc/cmd/protoc-gen-go-grpc@v1.6.2
mkdir -p "$here/generated"
PATH=$here/bin:$PATH protoc -I "$proto" --go_out="$here/generated" --go-grpc_out="$here/generated" "$proto"/attnd/v1/*.proto
(cd "$here" && go build -o bin/attend .)
exec "$here/bin/attend" "$@"
