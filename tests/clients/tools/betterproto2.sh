# shellcheck shell=bash
python_tools grpcio-tools==1.85.1 grpcio-status==1.85.3 'betterproto2[all]==0.10.0' betterproto2_compiler==0.10.1
for kind in sync async; do
  out=$SCRATCH/betterproto2/betterproto2_$kind
  mkdir -p "$out"
  PATH=$VENV/bin:$PATH python -m grpc_tools.protoc -I "$TREE/proto" --python_betterproto2_out="$out" \
    --python_betterproto2_opt=client_generation="$kind" "$TREE"/proto/attnd/v1/*.proto
  attend() {
    PYTHONPATH=$SCRATCH/betterproto2 "$VENV/bin/python" "$CLIENTS/programs/betterproto2_${kind}_client.py" "$ADDRESS" "$@"
  }
  rm -f "$OUTPUT"
  attend t5-tiny "$INPUT" "$OUTPUT"
  right "$OUTPUT"
  said=(NOT_FOUND "$UNKNOWN")
  # grpclib itself decodes details, and knows no messages of betterproto2.
  [ "$kind" = async ] || said+=('field model')
  refused "${said[@]}" -- attend no-such "$INPUT" "$OUTPUT"
done
echo "version: 0.10.0"
