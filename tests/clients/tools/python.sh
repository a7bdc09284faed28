# shellcheck shell=bash
# grpcio: one call, and a stream within 4 MiB.
example python attend.py
PROGRAM=stream.py example python
echo "version: grpcio $("$TREE/examples/clients/python/.venv/bin/python" -c 'import grpc; print(grpc.__version__)')"
