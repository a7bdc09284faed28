#!/usr/bin/env python3
"""Writes the seeds of the corpora of inputs_targets.cmake.   usage: make_inputs_corpus.py

Field numbers are those of proto/attnd/v1. What fuzzing found stands beside the seeds, under names of its own.
"""

from __future__ import annotations

import base64
import pathlib
import struct

HERE = pathlib.Path(__file__).parent


def varint(value: int) -> bytes:
    value &= (1 << 64) - 1
    out = b""
    while value >= 0x80:
        out += bytes([value & 0x7F | 0x80])
        value >>= 7
    return out + bytes([value])


def number(field: int, value: int) -> bytes:
    return varint(field << 3) + varint(value)


def block(field: int, data: bytes) -> bytes:
    return varint(field << 3 | 2) + varint(len(data)) + data


def floats(field: int, *values: float) -> bytes:
    return block(field, struct.pack(f"<{len(values)}f", *values))


def packed(field: int, *values: int) -> bytes:
    return block(field, b"".join(map(varint, values)))


def framed(data: bytes) -> bytes:
    return struct.pack("<H", len(data)) + data


def write(target: str, seeds: dict[str, bytes]) -> None:
    folder = HERE / f"{target}_corpus"
    folder.mkdir(exist_ok=True)
    for name, data in seeds.items():
        (folder / name).write_bytes(data)


# Uploads.
T5 = number(2, 2) + block(4, number(1, 4) + number(2, 9) + floats(3, 1, -2, 0.5, 0, 3, -4, 5, 0.001))
FAR = number(2, 1) + block(4, number(1, 2) + number(2, 1 << 40) + floats(3, 1, 2))
LONG = number(2, 1) + block(6, floats(2, *([0.5] * 450)))
BOTH = number(2, 1) + number(3, 1) + block(6, number(1, -3) + floats(2, 1, 2, 3, 4, 5))
ALIBI = number(2, 2) + block(5, floats(1, 0.5, 0.25))


def upload(table: bytes, model: bytes = b"m", name: bytes = b"", replace: bool = False, what: int = 0) -> bytes:
    named = block(1, name) if name else b""
    request = block(1, model) + block(2, named + table) + (number(3, 1) if replace else b"")
    return bytes([what]) + framed(request)


write(
    "upload",
    {
        "t5": upload(T5),
        "alibi": upload(ALIBI),
        "per_offset": upload(BOTH),
        "far": upload(FAR),
        "not_finite": upload(number(2, 1) + block(6, floats(2, float("nan")))),
        "no_rule": upload(number(2, 1)),
        "unpacked": upload(number(2, 1) + block(6, b"\x15" + struct.pack("<f", 1))),
        "replace": upload(T5) + upload(T5, replace=True, what=2) + upload(T5),
        "unload": upload(T5) + upload(T5, what=3) + upload(ALIBI),
        "long": upload(LONG, name=b"decoder.0") + upload(LONG, name=b"decoder.1") + upload(ALIBI, model=b"n"),
        "many_models": b"".join(upload(ALIBI, model=b"m%d" % i) for i in range(5)),
        "other_heads": upload(T5) + upload(BOTH, name=b"encoder"),
        "bad_names": upload(T5, model=b"../x") + upload(T5, name=b"cross") + upload(T5, model=b"\xff"),
        # Tables of 16 KiB each by their far last bucket, until one model and then all are full.
        "fill": b"".join(
            upload(
                number(2, 1) + block(4, number(1, 4) + number(2, 5000) + floats(3, 1, 2, 3, 4)),
                model=b"m%d" % (i // 6),
                name=b"decoder.%d" % i,
            )
            for i in range(12)
        ),
    },
)


# GetBias.
def window(model: int, *fields: bytes) -> bytes:
    return bytes([model]) + block(1, b"m") + b"".join(fields)


SQUARE = number(5, 5) + number(7, 6)
write(
    "bias_window",
    {
        "square": window(0, SQUARE),
        "no_mask": window(0, SQUARE, number(8, 2)),
        "bidirectional": window(1, block(3, b"encoder"), SQUARE),
        "alibi": window(1, SQUARE, packed(9, 1, 0, 1)),
        "far_per_offset": window(2, SQUARE, number(4, 0x7FFFFFF0), number(8, 2)),
        "causal_beyond": window(2, block(3, b"decoder.1"), SQUARE, number(6, 100), number(8, 1)),
        "bad_head": window(0, SQUARE, packed(9, 2)),
        "bad_mask": window(0, SQUARE, number(8, 77)),
        "too_large": window(0, number(5, 1 << 20), number(7, 1 << 20)),
        "negative": window(0, number(4, -1), SQUARE),
        "table_of_markup": window(0, block(3, b'<&">'), SQUARE),
        "one_cell": window(0, number(5, 1), number(7, 1)),
    },
)


# Pictures: sizes, starts, what is set, columns, the title, ranges, then numbers.
def picture(queries: int, keys: int, what: int, title: bytes, rest: bytes, starts: tuple[int, int] = (0, 0)) -> bytes:
    head = struct.pack("<BBIIBBB", queries - 1, keys - 1, *starts, what, 60, len(title))
    return head + title + rest


NAN, INF = struct.pack("<f", float("nan")), struct.pack("<f", float("inf"))
write(
    "picture",
    {
        "zeros": picture(4, 5, 0, b"m version 1, decoder", b""),
        "causal": picture(6, 6, 1 | 32, b"m", b"\0" + bytes(range(36))),
        "colour": picture(6, 6, 2 | 32, b"m", b"\0" + bytes(range(36))),
        "markup": picture(3, 3, 32, b"<script>&\"'</script>", b"\0" + bytes(9)),
        "no_utf8": picture(3, 3, 32, b"\xff\xfe\0\x01\x1b[2J\xed\xa0\x80\xef\xbf\xbf", b"\0" + bytes(9)),
        "ranges": picture(3, 3, 32, b"m", b"\2\0\3" + struct.pack("<qq", -(1 << 63), (1 << 63) - 1) + b"\1\0" + bytes(9)),
        "no_buckets": picture(3, 3, 64, b"m", b"\0" + bytes(36)),
        "not_finite": picture(1, 3, 64, b"m", b"\0" + bytes(12) + NAN + INF + b"\0\0\0\0"),
        "largest": picture(40, 40, 8 | 32, b"m", b"\0" + b"\1\2\3" * 700),
        "far_start": picture(2, 9, 1 | 32, b"m", b"\0" + bytes(18), (0x7FFFFFFF, 0)),
        "wild_buckets": picture(2, 2, 0, b"m", b"\0" + struct.pack("<4i", -(1 << 31), (1 << 31) - 1, -1, 5)),
    },
)

# Addresses.
TEXTS = {
    "tcp": b"127.0.0.1:50051",
    "name": b"localhost:0",
    "v6": b"[::1]:8080",
    "v6_zone": b"[fe80::1%eth0]:1",
    "v6_bare": b"::1:8080",
    "no_port": b"localhost",
    "port_name": b"localhost:http",
    "port_high": b"localhost:65536",
    "port_zeros": b"localhost:0000000000000080",
    "unix": b"unix:/run/attnd.sock",
    "unix_uri": b"unix:///run/a%20b.sock",
    "unix_host": b"unix://host/x",
    "unix_query": b"unix:/x?y",
    "unix_zero": b"unix:/x%00y",
    "unix_cut": b"unix:/x%2",
    "unix_empty": b"unix:",
    "brackets": b"[[::1]]:1",
    "bracket_open": b"[localhost:80",
    "bracket_close": b"localhost]:80",
    "bracket_alone": b"[:80",
    "colon": b":",
}
write("address", TEXTS)

# Flags.
write(
    "flags",
    {
        "bytes": b"max_request_bytes=1GiB\nmax_result_bytes=256MiB\nmax_model_bytes=1KiB\nmax_total_model_bytes=8EiB",
        "bytes_wrong": b"max_request_bytes=1.5GiB\nmax_result_bytes=-1\nmax_model_bytes=9223372036854775808",
        "bytes_most": b"max_shared_bytes=9223372036854775807\nmax_inflight_bytes=8191PiB",
        "counts": b"max_models=5\nmax_dim=2147483647\nmax_table_values=0",
        "mode": b"unix_socket_mode=0600",
        "mode_wrong": b"unix_socket_mode=7777",
        "mode_word": b"unix_socket_mode=rw-",
        "times": b"keepalive_time=500ms\nkeepalive_timeout=1h\nmax_connection_age=inf\nmin_ping_interval=0.1s",
        "times_wrong": b"keepalive_time=-1s\nkeepalive_timeout=1y",
        "times_small": b"min_ping_interval=1ns",
        "drain": b"drain_seconds=1e300",
        "drain_nan": b"drain_seconds=nan",
        "drain_inf": b"drain_seconds=inf",
        "listen": b"listen=unix:/x,[::1]:0,localhost:1",
        "listen_wrong": b"listen=,,",
        "strict": b"strict_models=true",
        "strict_root": b"strict_models=1\nmodel_root=/x",
        "threads": b"threads=4097\nkernel=x86-64-v3\nlog_level=off",
        "last_wins": b"log_level=loud\nlog_level=trace\nlocal_calls=no\nshared_memory=0",
    },
)

# Page tokens.
write(
    "page_token",
    {
        "valid": base64.urlsafe_b64encode(b"after:name").rstrip(b"="),
        "padded": base64.urlsafe_b64encode(b"after:name12"),
        "no_name": base64.urlsafe_b64encode(b"after:"),
        "other_prefix": base64.urlsafe_b64encode(b"before:x"),
        "spaces": b" YWZ0\nZXI6bmFtZQ",
        "bytes": b"\xff\x00\x80",
        "empty": b"",
        "loose_bits": b"YWZ0ZXI6bmFtZR",
    },
)

# The validator.
MODEL = block(1, b"m")


def sizes(*dims: int) -> bytes:
    """batch, heads, kv_heads, query_length, key_length, head_dim, value_head_dim"""
    return b"".join(number(4 + i, dim) for i, dim in enumerate(dims))


SMALL = MODEL + sizes(2, 6, 2, 5, 7, 8, 4)
FP32, FP16, BF16 = (number(11, dtype) for dtype in (1, 2, 3))
MOST = (1 << 31) - 1


def attention(*fields: bytes, lengths: tuple[int, int, int] | None = None) -> bytes:
    head = b"\0" if lengths is None else b"\1" + struct.pack("<3Q", *lengths)
    return head + b"".join(fields)


write(
    "validation",
    {
        "plain": attention(SMALL, FP32),
        "fp16": attention(SMALL, FP16, number(12, 2)),
        "bf16": attention(SMALL, BF16, number(18, 1), number(20, 2)),
        "encoder": attention(SMALL, FP32, block(3, b"encoder"), number(13, 2)),
        "no_bias": attention(sizes(1, 1, 1, 1, 1, 1, 1), FP32, number(28, 1)),
        "log_sum_exp": attention(SMALL, FP32, number(19, 1)),
        "masks": attention(
            SMALL, FP32, packed(16, 5, 0), packed(17, 7, 1), packed(29, -5, 9), packed(30, 0, 7), block(31, b"\x7f\1")
        ),
        "lengths_wrong": attention(SMALL, FP32, packed(16, 6, 0)),
        "first_head": attention(MODEL, sizes(1, 2, 2, 5, 7, 8, 4), FP32, number(21, 4)),
        "first_head_wrong": attention(MODEL, sizes(1, 2, 2, 5, 7, 8, 4), FP32, number(21, 5)),
        "first_head_far": attention(MODEL, sizes(1, 2, 2, 5, 7, 8, 4), FP32, number(21, (1 << 63) - 1)),
        "offset": attention(SMALL, FP32, number(15, MOST - 5)),
        "scale": attention(SMALL, FP32, b"\x75" + struct.pack("<f", float("inf"))),
        "largest": attention(MODEL, sizes(MOST, 6, 6, MOST, MOST, 4096, 4096), FP32),
        "overflow": attention(sizes(MOST, MOST, 1, MOST, MOST, 4096, 4096), FP32, number(28, 1)),
        "long_keys": attention(sizes(1, 1, 1, 1, MOST, 1, 1), FP32, number(28, 1)),
        "batches": attention(sizes(40_000_000, 1, 1, 1, 1, 1, 1), FP32, number(28, 1), number(19, 1)),
        "sizes_follow": attention(SMALL, FP32, lengths=(1920, 896, 448)),
        "sizes_wrap": attention(SMALL, FP32, lengths=((1 << 64) - 1, 0, 1 << 63)),
        "shared": attention(SMALL, FP32, block(22, block(1, bytes(16))), lengths=(0, 896, 448)),
        "negative": attention(MODEL, sizes(-1, 6, 2, 5, 7, 8, 4), FP32),
    },
)

# The handshake: kinds of descriptors (255: none), what to send, the message.
NONE = 255


def message(kinds: tuple[int, ...], size: int = 8192, operation: int = 1, what: int = 2) -> bytes:
    body = struct.pack("<IQ16s", operation, size, bytes(16)) if what != 1 else b""
    return bytes((*kinds, *[NONE] * (3 - len(kinds)), what)) + framed(body)


RELEASE = message((), what=1)
write(
    "shm_handshake",
    {
        "register": message((0,)),
        "release": message((0,)) + RELEASE,
        "release_twice": message((0,)) + RELEASE + RELEASE,
        "no_descriptor": message(()),
        "two_descriptors": message((0, 0)),
        "too_large": message((0,), 8193),
        "empty": message((0,), 0) + message((4,), 0) + message((4,), 1),
        "huge": message((5,), 1 << 40) + message((5,), 32768) + message((5,), 8192),
        "wrap": message((5,), (1 << 64) - 1) + message((5,), 1 << 63),
        "regions": message((0,), 1) * 5,
        "descriptor_with_release": message((0,)) + message((7,), what=1),
        "operation": message((0,), operation=3) + message((0,), operation=0),
        "half": bytes((0, NONE, NONE, 0)) + framed(b"attndshm\1"),
        "version": bytes((0, NONE, NONE, 0)) + framed(struct.pack("<8sIIQ16s", b"attndshm", 2, 1, 4096, bytes(16))),
        **{f"kind_{kind}": message((kind,)) + message((0,)) for kind in range(1, 16)},
    },
)

# Sessions.
SELF_LAYER = number(1, 1) + block(2, b"decoder") + number(4, 8) + number(6, 4)
PLAIN_LAYER = number(1, 1) + number(3, 1) + number(4, 2) + number(5, 1) + number(6, 3) + number(7, 5)
CROSS_LAYER = number(1, 2) + number(4, 2) + number(6, 4)


def opening(*layers: bytes, rows: int = 3, sources: int = 0, dtype: int = 1, model: bytes = b"t5-tiny") -> bytes:
    return framed(
        block(1, model)
        + number(3, rows)
        + number(4, sources)
        + b"".join(block(5, layer) for layer in layers)
        + number(6, dtype)
        + number(7, 70)
        + number(8, 70 if sources else 0)
    )


def session_step(step: int, layer: int, keys: int = 1, queries: int = 1, rest: bytes = b"", choices: int = 3) -> bytes:
    fields = number(1, step) + number(2, layer) + rest + number(9, keys) + number(11, queries) + number(13, 1)
    return bytes([choices]) + framed(fields)


GROWS = b"".join(session_step(i + 1, 0) for i in range(5))
write(
    "session",
    {
        "grows": opening(SELF_LAYER) + GROWS,
        "beams": opening(SELF_LAYER, CROSS_LAYER, rows=4, sources=2, dtype=3)
        + session_step(1, 1, 66, 0, block(7, bytes(18)) + number(8, 66))
        + session_step(2, 0, 64)
        + session_step(3, 0, 2, 1, packed(4, 1, 1, 0, 3))
        + session_step(4, 1, 0, 2, packed(4, 3, 2, 1, 0)),
        "uneven": opening(PLAIN_LAYER, model=b"", dtype=2)
        + session_step(1, 0, 5, 3, packed(10, 5, 0, 2) + packed(12, 3, 0, 1) + packed(6, 1, 0, 0))
        + session_step(2, 0, 1, 1, packed(5, 2, 2, 0) + packed(3, 2, 0, 2)),
        "taken_back": opening(SELF_LAYER)
        + GROWS
        + session_step(6, 0, 3, 1, packed(4, 2, 2, 2), choices=1)
        + session_step(6, 0, 3, 1, packed(5, 0, 0, 0)),
        "again": opening(SELF_LAYER) + GROWS + session_step(5, 0) + session_step(7, 0),
        "too_many": opening(SELF_LAYER) + session_step(1, 0, 71) + session_step(1, 0, 70) + session_step(2, 0),
        "no_rows": opening(SELF_LAYER, rows=0),
        "huge": opening(SELF_LAYER, rows=65536),
    },
)
