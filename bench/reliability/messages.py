"""attnd's requests, encoded by hand: tensors are zeros that take no memory here, and need not be copied.

Field numbers are those of proto/attnd/v1.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterable, Mapping

COMPUTE = "/attnd.v1.AttentionService/ComputeAttention"
STREAM = "/attnd.v1.AttentionService/StreamAttention"
UPLOAD = "/attnd.v1.ModelService/UploadTable"
LOAD = "/attnd.v1.ModelService/LoadModel"
LIST = "/attnd.v1.ModelService/ListModels"
BIAS = "/attnd.v1.ModelService/GetBias"

FP32, BF16 = 1, 3
BIAS_NONE = 1
# Where tensors are, in ComputeAttentionRequest and StreamAttentionRequest, and as SharedTensor.
TENSORS = {"q": 100, "k": 101, "v": 102}
SHARED = {"q": 22, "k": 23, "v": 24, "output": 25}


def varint(value: int) -> bytes:
    out = bytearray()
    while value >= 128:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)


def number(field: int, value: int) -> bytes:
    return varint(field << 3) + varint(value) if value else b""


def head(field: int, size: int) -> bytes:
    """What stands before `size` bytes of a field."""
    return varint(field << 3 | 2) + varint(size)


def text(field: int, value: bytes) -> bytes:
    return head(field, len(value)) + value


def packed(field: int, values: Iterable[int]) -> bytes:
    return text(field, b"".join(map(varint, values)))


def read_varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if byte < 128:
            return value, at


def fields(data: bytes) -> dict[int, int | bytes]:
    """The last value of each field of a message."""
    found: dict[int, int | bytes] = {}
    at = 0
    while at < len(data):
        key, at = read_varint(data, at)
        if key & 7 == 0:
            found[key >> 3], at = read_varint(data, at)
        elif key & 7 == 2:
            size, at = read_varint(data, at)
            found[key >> 3], at = data[at : at + size], at + size
        else:
            raise ValueError(f"wire type {key & 7}")
    return found


def answer(data: bytes) -> tuple[int, str]:
    """Code and message of a StreamAttentionResponse, of which `data` has the begin."""
    at, code, message = 0, 0, b""
    while at < len(data):
        key, at = read_varint(data, at)
        value, at = read_varint(data, at)
        if key >> 3 == 2:
            code = value
        elif key >> 3 == 3:
            message = data[at : at + value]
        elif key >> 3 > 3:
            break
        at += value if key & 7 == 2 else 0
    return code, message.decode(errors="replace")


@functools.lru_cache(maxsize=8)
def zeros(size: int) -> memoryview:
    return memoryview(bytes(size))


@dataclasses.dataclass(frozen=True)
class Call:
    """An attention call without bias."""

    batch: int = 1
    heads: int = 1
    queries: int = 1
    keys: int = 1
    dim: int = 1
    value_dim: int = 1
    dtype: int = BF16
    output_dtype: int = BF16
    query_lengths: tuple[int, ...] = ()
    key_lengths: tuple[int, ...] = ()

    def sizes(self) -> dict[str, int]:
        """Bytes of each tensor."""
        rows, element = self.batch * self.heads, 4 if self.dtype == FP32 else 2
        return {
            "q": rows * self.queries * self.dim * element,
            "k": rows * self.keys * self.dim * element,
            "v": rows * self.keys * self.value_dim * element,
            "output": rows * self.queries * self.value_dim * (4 if self.output_dtype == FP32 else 2),
        }

    def header(self) -> bytes:
        fields = {4: self.batch, 5: self.heads, 7: self.queries, 8: self.keys, 9: self.dim, 10: self.value_dim}
        fields[11] = self.dtype
        out = b"".join(number(field, value) for field, value in fields.items())
        if self.query_lengths:
            out += packed(16, self.query_lengths)
        if self.key_lengths:
            out += packed(17, self.key_lengths)
        return out + number(18, self.output_dtype) + number(28, BIAS_NONE)

    def tensors(self) -> list[bytes | memoryview]:
        sizes = self.sizes()
        return [part for name, field in TENSORS.items() for part in (head(field, sizes[name]), zeros(sizes[name]))]

    def message(self) -> list[bytes | memoryview]:
        """As a ComputeAttentionRequest that carries its tensors."""
        return [self.header(), *self.tensors()]

    def piece(self, id: int) -> list[bytes | memoryview]:
        """As a StreamAttentionRequest."""
        return [number(1, id) + text(2, self.header()), *self.tensors()]

    def shared(self, region: bytes, shared: Mapping[str, int]) -> bytes:
        """As a ComputeAttentionRequest whose tensors stand at these offsets of a region."""
        places = (text(SHARED[name], text(1, region) + number(2, offset)) for name, offset in shared.items())
        return self.header() + b"".join(places)

    def places(self) -> tuple[dict[str, int], int]:
        """Offsets for q, k, v and the output in a region, and the bytes that they take."""
        at, offsets = 0, {}
        for name, size in self.sizes().items():
            offsets[name] = at
            at += -(-size // 4096) * 4096
        return offsets, at


def upload(model: str, table: str, values: int, min_offset: int = 0) -> list[bytes | memoryview]:
    """An UploadTableRequest: one head with a value for each of `values` offsets."""
    rule = number(1, min_offset) + head(2, 4 * values)
    body = text(1, table.encode()) + number(2, 1)
    body += head(6, len(rule) + 4 * values) + rule
    return [text(1, model.encode()) + head(2, len(body) + 4 * values) + body, zeros(4 * values)]


def upload_t5(model: str, max_distance: int, heads: int = 1, buckets: int = 32) -> list[bytes | memoryview]:
    """An UploadTableRequest of a few bytes, whose table has a value for each offset up to `max_distance`."""
    rule = number(1, buckets) + number(2, max_distance) + text(3, bytes(4 * buckets * heads))
    return [text(1, model.encode()) + text(2, number(2, heads) + text(4, rule))]


def load(path: str, name: str) -> list[bytes | memoryview]:
    return [text(1, name.encode()) + text(2, path.encode())]


def list_models(page_size: int = 1000) -> list[bytes | memoryview]:
    return [number(1, page_size)]


def bias(model: str, queries: int, keys: int) -> list[bytes | memoryview]:
    return [text(1, model.encode()) + number(5, queries) + number(7, keys) + packed(9, [0])]
