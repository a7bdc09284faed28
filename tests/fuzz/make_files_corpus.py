#!/usr/bin/env python3
"""Writes the seeds of the fuzz targets' corpora: small valid files of each kind.   usage: make_files_corpus.py"""
import json
import pathlib
import struct

HERE = pathlib.Path(__file__).parent
GOLDEN = HERE.parent / "golden" / "checkpoints"
EMBEDDED = HERE.parent.parent / "src" / "model" / "embedded"


def safetensors(tensors, metadata=None):
    header, data = ({"__metadata__": metadata} if metadata else {}), b""
    for name, (dtype, shape, content) in tensors.items():
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [len(data), len(data) + len(content)]}
        data += content
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + data


def checkpoint(files):
    return b"".join(b"\x1e" + name.encode() + b"\x1e" + content for name, content in files.items())


def write(target, name, content):
    folder = HERE / f"{target}_corpus"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(content)


write("safetensors", "empty", safetensors({}))
write("safetensors", "mixed", safetensors(
    {"q": ("F32", [1, 2], b"\0" * 8), "k": ("BF16", [2], b"\0" * 4), "mask": ("BOOL", [3], b"\1\0\1"),
     "none": ("F16", [0, 4], b""), "scalar": ("I64", [], b"\0" * 8), "packed": ("F4", [4], b"\0\0")}, {"made": "here"}))

for name in ("t5_f32_tables", "t5_bf16_tables", "umt5_f32_tables"):
    write("gguf", name, (GOLDEN / f"{name}.gguf").read_bytes())

write("json_model", "book", (EMBEDDED / "book.json").read_bytes())
write("json_model", "others", json.dumps({"tables": {
    "decoder.0": {"rule": "alibi", "slopes": [0.5, 1e-3]},
    "decoder.1": {"rule": "per_offset", "min_offset": -1, "values": [[0, 1, 2], [3, 4, 5]]},
    "encoder": {"rule": "t5", "num_buckets": 4, "max_distance": 9, "bidirectional": True,
                "values": [[1, 2], [3, 4], [5, 6], [7, 8]]}}}).encode())

BIAS = "layer.0.SelfAttention.relative_attention_bias.weight"
CONFIG = json.dumps({"model_type": "t5", "num_heads": 1, "num_layers": 2, "relative_attention_num_buckets": 4,
                     "relative_attention_max_distance": 8}).encode()
ENCODER = {f"encoder.block.0.{BIAS}": ("F32", [4, 1], b"\0" * 16)}
DECODER = {f"decoder.block.0.{BIAS}": ("F16", [4, 1], b"\0" * 8)}
write("hf_checkpoint", "single", checkpoint({"config.json": CONFIG, "model.safetensors": safetensors(ENCODER | DECODER)}))
write("hf_checkpoint", "sharded", checkpoint({
    "config.json": CONFIG, "a.safetensors": safetensors(ENCODER), "b.safetensors": safetensors(DECODER),
    "model.safetensors.index.json": json.dumps({"weight_map": {
        next(iter(ENCODER)): "a.safetensors", next(iter(DECODER)): "b.safetensors"}}).encode()}))
for name in ("umt5_fp32", "mt5_bf16", "t5_old_config"):
    write("hf_checkpoint", f"config_{name}", checkpoint({"config.json": (GOLDEN / name / "config.json").read_bytes()}))
