# shellcheck shell=bash
example go attend.go
echo "version: grpc-go $(sed -n 's/^require google.golang.org\/grpc //p' "$TREE/examples/clients/go/go.mod")"
