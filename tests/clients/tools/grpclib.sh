# shellcheck shell=bash
python_tools grpcio-tools==1.85.1 grpclib==0.4.9 googleapis-common-protos==1.76.0
out=$SCRATCH/grpclib
mkdir -p "$out"
PATH=$VENV/bin:$PATH python -m grpc_tools.protoc -I "$TREE/proto" --python_out="$out" --grpclib_python_out="$out" \
  "$TREE"/proto/attnd/v1/*.proto
attend() { PYTHONPATH=$out "$VENV/bin/python" "$CLIENTS/programs/grpclib_client.py" "$ADDRESS" "$@"; }
attend t5-tiny "$INPUT" "$OUTPUT"
right "$OUTPUT"
refused NOT_FOUND "$UNKNOWN" 'field model' -- attend no-such "$INPUT" "$OUTPUT"
echo "version: 0.4.9"
