# shellcheck shell=bash
go_tool github.com/bufbuild/buf/cmd/buf@v1.75.0
cd "$TREE/proto" || exit
buf lint
sed -i 's/^option go_package = .*/option go_package = "elsewhere";/' attnd/v1/types.proto
refused 'go_package' -- buf lint
cp "$ROOT/proto/attnd/v1/types.proto" attnd/v1/types.proto
echo "version: v1.75.0"
