"""attnd's protobuf contract as Python modules, generated from proto/ into a folder that goes with the process."""

from __future__ import annotations

import importlib
import pathlib
import sys
import tempfile

import grpc_tools
from grpc_tools import protoc

PROTO = pathlib.Path(__file__).resolve().parents[2] / "proto"

# Tensors are larger than gRPC's default limit of 4 MiB.
CHANNEL_OPTIONS = [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)]


def _generate() -> tempfile.TemporaryDirectory:
    folder = tempfile.TemporaryDirectory(prefix="attnd-proto-")
    files = sorted(str(path.relative_to(PROTO)) for path in PROTO.glob("attnd/v1/*.proto"))
    well_known = pathlib.Path(grpc_tools.__file__).parent / "_proto"
    out = [f"--python_out={folder.name}", f"--grpc_python_out={folder.name}"]
    if protoc.main(["protoc", f"-I{PROTO}", f"-I{well_known}", *out, *files]) != 0:
        raise RuntimeError(f"protoc failed on {PROTO}")
    return folder


_folder = _generate()
sys.path.insert(0, _folder.name)

types = importlib.import_module("attnd.v1.types_pb2")
attention = importlib.import_module("attnd.v1.attention_pb2")
attention_grpc = importlib.import_module("attnd.v1.attention_pb2_grpc")
model = importlib.import_module("attnd.v1.model_pb2")
model_grpc = importlib.import_module("attnd.v1.model_pb2_grpc")
server = importlib.import_module("attnd.v1.server_pb2")
server_grpc = importlib.import_module("attnd.v1.server_pb2_grpc")
