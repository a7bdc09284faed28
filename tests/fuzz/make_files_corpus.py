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

write("safetensors", "unknown_dtypes", safetensors(
    {"a": ("F8_E4M3FNUZ", [3], b"\0" * 3), "b": ("F31", [7, 9], b"\0" * 5), "c": ("F6_E2M3", [4], b"\0" * 3),
     "d": ("F32", [1], b"\0" * 4)}))
for shard in sorted((HERE.parent / "golden" / "gguf_split").glob("*.gguf")):
    write("gguf", shard.stem.replace("-", "_"), shard.read_bytes())


def gguf_text(text):
    return struct.pack("<Q", len(text)) + text


# Tensors of unknown types around a table, nested arrays, an alignment that is no power of two, space between tensors.
write("gguf", "whatever_is_allowed", (lambda header: header + b"\0" * (-len(header) % 24) + b"\0" * 96)(
    b"GGUF" + struct.pack("<IQQ", 3, 3, 3)
    + gguf_text(b"x.attention.relative_buckets_count") + struct.pack("<II", 4, 2)
    + gguf_text(b"general.alignment") + struct.pack("<II", 4, 24)
    + gguf_text(b"nested") + struct.pack("<IIQIQB", 9, 9, 1, 7, 1, 1)
    + gguf_text(b"a") + struct.pack("<IQIQ", 1, 256, 77, 0)
    + gguf_text(b"enc.blk.0.attn_rel_b.weight") + struct.pack("<IQQIQ", 2, 1, 2, 0, 24)
    + gguf_text(b"b") + struct.pack("<IQQQQQIQ", 5, 2, 1, 1, 1, 2, 40, 72)))

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
PYTHONS = CONFIG[:-1] + b', "a": [NaN, Infinity, -Infinity, 1E400, "\\ud800"], "b": 1, "b": 2}'
write("hf_checkpoint", "config_as_python_writes", checkpoint({
    "config.json": PYTHONS, "model.safetensors": safetensors(ENCODER | {"x": ("F8_E5M2FNUZ", [2], b"\0\0")})}))
for name in ("umt5_fp32", "mt5_bf16", "t5_old_config"):
    write("hf_checkpoint", f"config_{name}", checkpoint({"config.json": (GOLDEN / name / "config.json").read_bytes()}))
