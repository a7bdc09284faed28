#!/usr/bin/env python3
"""Writes the seeds of local_connection_corpus: rows of datagrams.   usage: make_local_corpus.py

Needs the protobuf package.
"""
import pathlib
import struct
import sys

HERE = pathlib.Path(__file__).parent
sys.path.insert(0, str(HERE.parent.parent / "client" / "python" / "src"))

from attnd.v1 import attention_pb2, local_pb2, session_pb2, types_pb2  # noqa: E402

MARKER = b"-handle-of-16-b-"


def framed(*datagrams):
    rows = [datagram if isinstance(datagram, tuple) else (datagram, 0) for datagram in datagrams]
    return b"".join(struct.pack("<BH", descriptors, len(data)) + data for data, descriptors in rows)


def fixed(operation, size=4096, handle=bytes(16), version=1):
    return struct.pack("<8sIIQ16s", b"attndshm", version, operation, size, handle)


def hello(version=1):
    return local_pb2.LocalRequest(hello=local_pb2.LocalHello(version=version, user_agent="fuzz")).SerializeToString()


def request(**fields):
    values = dict(model="test", batch=1, heads=2, query_length=2, key_length=3, head_dim=2, dtype=types_pb2.DTYPE_FP32)
    sent = dict(q=b"\0\0\x80?" * 8, k=b"\0\0\0?" * 12, v=b"\0\0\0@" * 12)
    return attention_pb2.ComputeAttentionRequest(**{**values, **sent, **fields})


def shared(offset):
    return attention_pb2.SharedTensor(region=MARKER, offset=offset)


def call(call_id, what, **fields):
    return local_pb2.LocalRequest(
        call=local_pb2.LocalCall(id=call_id, request=what, **fields)).SerializeToString()


def cancel(call_id):
    return local_pb2.LocalRequest(cancel=local_pb2.LocalCancel(id=call_id)).SerializeToString()


def in_memory(**fields):
    return request(q=b"", k=b"", v=b"", q_shared=shared(0), k_shared=shared(64), v_shared=shared(128),
                   output_shared=shared(256), **fields)


def bytes_of_call(call_id, what):
    inner = b"\x08" + bytes([call_id]) + b"\x1a" + bytes([len(what)]) + what
    return b"\x12" + bytes([len(inner)]) + inner


def session(**kind):
    return local_pb2.LocalRequest(session=session_pb2.SessionRequest(**kind)).SerializeToString()


def opening(**fields):
    layer = session_pb2.SessionLayer
    layers = [layer(kind=1, heads=2, head_dim=2, table="decoder"), layer(kind=2, heads=2, head_dim=2)]
    values = dict(model="test", rows=2, sources=1, layers=layers, dtype=types_pb2.DTYPE_FP32, max_tokens=20,
                  max_source_tokens=20)
    return session(open=session_pb2.SessionOpen(**{**values, **fields}))


def step(number, layer=0, sent=True, **fields):
    values = dict(step=number, layer=layer, key_length=1, query_length=1, dtype=types_pb2.DTYPE_FP32)
    count = 2 if layer == 0 else 1
    tensors = dict(q=b"\0\0\x80?" * 8, k=b"\0\0\0?" * 4 * count, v=b"\0\0\0@" * 4 * count) if sent else {}
    return session(step=session_pb2.SessionStep(**{**values, **fields}), **tensors)


def session_cancel(number):
    return session(cancel=session_pb2.SessionCancel(step=number))


CLOSE = local_pb2.LocalRequest(session_close=local_pb2.LocalSessionClose()).SerializeToString()
LARGE = dict(query_length=64, key_length=64, head_dim=1, q=b"\0\0\x80?" * 128, k=b"\0" * 512, v=b"\0" * 512)
TIMEOUT = local_pb2.LocalCall().timeout.__class__

SEEDS = {
    "hello": framed(hello()),
    "other_version": framed(hello(2), fixed(1)),
    "call": framed(hello(), call(1, request())),
    "call_first": framed(call(1, request())),
    "two_hellos": framed(hello(), hello()),
    "calls": framed(hello(), *[call(i, request(return_log_sum_exp=True)) for i in range(5)]),
    "large": framed(hello(), call(1, request(**LARGE)), call(2, request(**LARGE)), cancel(2), cancel(1), cancel(7)),
    "same_id": framed(hello(), call(1, request(**LARGE)), call(1, request(**LARGE))),
    "timeouts": framed(hello(), *[call(i, request(), timeout=TIMEOUT(seconds=s, nanos=n))
                                  for i, (s, n) in enumerate([(0, 0), (-1, 0), (0, -1), (1, 10**9), (5, 5)])]),
    "refused": framed(hello(), call(1, request(batch=0)), call(2, request(q=b"")), call(3, request(model="none"))),
    "masks": framed(hello(), call(1, request(key_starts=[1], key_bits=b"\xfe", query_offsets=[-1])),
                    call(2, request(key_starts=[4])), call(3, request(key_bits=b"ab")),
                    call(4, request(query_offsets=[0], query_offset=0))),
    "no_bias": framed(hello(), call(1, request(model="", bias=attention_pb2.BIAS_NONE, key_bits=b"\x05")),
                      call(2, request(bias=attention_pb2.BIAS_NONE)), call(3, request(bias=2))),
    "no_room": framed(hello(), call(1, request(batch=64, heads=2, query_length=64, head_dim=1, value_head_dim=16))),
    "bad_utf8": framed(hello(), bytes_of_call(7, b"\x0a\x01\xff"), bytes_of_call(8, b"\x07")),
    "register": framed((fixed(1), 1), fixed(2, handle=MARKER), fixed(2)),
    "refused_fixed": framed(fixed(1), (fixed(1, size=5000), 1), fixed(9), fixed(1, version=2)),
    "two_descriptors": framed((fixed(1), 2)),
    "shared": framed((fixed(1), 1), hello(), call(1, in_memory()),
                     call(2, in_memory(return_log_sum_exp=True, log_sum_exp_shared=shared(512)))),
    "overlaps": framed((fixed(1), 1), hello(), call(1, in_memory(return_log_sum_exp=True, log_sum_exp_shared=shared(0))),
                       call(2, in_memory(log_sum_exp_shared=shared(512))), fixed(2, handle=MARKER),
                       call(3, in_memory())),
    "descriptor_with_call": framed(hello(), (call(1, request()), 1)),
    "half_fixed": framed((fixed(1)[:20], 1)),
    "session": framed(hello(), opening(), step(1), step(2, 1), step(3, reorder=[1, 1]), step(3, reorder=[1, 1]), CLOSE),
    "session_alone": framed(opening(), step(1)),
    "session_refused": framed(hello(), opening(rows=0), step(1), opening(), CLOSE),
    "session_dropped": framed(hello(), opening(), step(1), step(2), step(3), step(4), step(5)),
    "session_steps": framed(hello(), opening(), step(1, truncate=[0, 1]), step(9), step(2, query_length=0, key_length=0,
                            sent=False, quiet=True), session_cancel(3), step(3, timeout=TIMEOUT(seconds=-1)),
                            step(3, return_log_sum_exp=True), session_cancel(4), CLOSE, step(4)),
    "session_shared": framed((fixed(1), 1), hello(), opening(), step(1, sent=False, q_shared=shared(0),
                             k_shared=shared(64), v_shared=shared(128), output_shared=shared(256)),
                             step(2, sent=False, q_shared=shared(0), k_shared=shared(64), v_shared=shared(4090)),
                             step(2, k_shared=shared(0)), fixed(2, handle=MARKER),
                             step(2, sent=False, q_shared=shared(0), k_shared=shared(64), v_shared=shared(128)), CLOSE),
    "session_and_calls": framed(hello(), opening(), call(1, request()), step(1), call(2, request()), CLOSE,
                                call(3, request())),
    "session_twice": framed(hello(), opening(), opening(), CLOSE, CLOSE),
    "cut": framed(hello(), call(1, request())[:-3]),
}

if __name__ == "__main__":
    folder = HERE / "local_connection_corpus"
    folder.mkdir(exist_ok=True)
    for name, seed in SEEDS.items():
        (folder / name).write_bytes(seed)
