"""Checks a caller's arguments and makes a call of them: the message's small fields, and views of the tensors.

Errors that can be found from shapes alone are raised here, worded as the server words them, before anything is sent.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Any, Dict, NamedTuple, Optional, Sequence, Tuple

import numpy as np

from attnd import _dtypes, _masks, _tensors
from attnd._arguments import integer, model_name, one_of, text
from attnd.errors import InvalidArgument, ResourceExhausted
from attnd.v1 import attention_pb2

LAYOUTS: Dict[str, bool] = {"bhsd": False, "bshd": True}  # whether the sequence axis comes before the heads
MASKS: Dict[Optional[str], int] = {None: 0, "causal": 1, "none": 2}
_PRECISIONS = {None: 0, _dtypes.FP32: 1, _dtypes.BF16: 2}
_OTHER_ARRAYS = ("out", "key_mask", "key_bias")
_NOT_WITH_SEGMENTS = (
    "query_offset",
    "query_offsets",
    "query_lengths",
    "key_lengths",
    "key_starts",
    "key_mask",
    "prefix_lengths",
    "key_bias",
    "kv_rows",
)
_ON_THE_WIRE = {"key_mask": "key_bits"}
_BIAS_NONE = 1  # attnd.v1.Bias
_MAX_POSITION = 2**31 - 1
_MAX_FLOAT = 3.4028235677973362e38  # the largest double that rounds to a finite float
# Protobuf's limit for a message, less a reserve for the small fields.
_MAX_MESSAGE_BYTES = 2**31 - 1 - (1 << 20)


@dataclass(eq=False)
class ComputeRequest:
    """One batch of queries, keys and values: the arguments of :meth:`attnd.Client.attend` as an object.

    Attributes:
        q: [batch, heads, query_length, head_dim] in ``layout``; float32, float16 or bfloat16.
        k: [batch, kv_heads, key_length, head_dim]; kv_heads divides heads (grouped-query attention).
        v: [batch, kv_heads, key_length, value_head_dim].
        model: name of a loaded model, whose bias is added; None adds no bias. Without a model, table, version and
            first_head must be left at their defaults, q may have any number of heads, and mask=None means "none".
        table: "decoder" (also if None), "encoder", "decoder.N", "encoder.N".
        version: of the model; 0 is the current one.
        layout: order of the axes of q, k, v and the output: "bhsd" is [batch, heads, sequence, dim], "bshd" is
            [batch, sequence, heads, dim].
        mask: which keys a query may see: "causal", "none" (every key), or None (the table's own mask).
        scale: factor of q.k; None is 1, as in T5.
        query_offset: position of the first query among the keys; None is key_length - query_length.
        query_lengths: true number of queries of each sequence, [batch]; None is all. Later output rows are zeros.
        key_lengths: true number of keys of each sequence, [batch]; None is all. Later keys are masked.
        query_offsets: query_offset of each sequence, [batch], in place of one for all.
        key_starts: first true key of each sequence, [batch]; None is 0 for all. Earlier keys are masked (padding on the
            left); positions are still counted from key row 0.
        key_mask: which keys are true, [batch, key_length]; an array (numpy, torch, JAX) of bool or of integers that are
            0 or 1, like Hugging Face's attention_mask. None is all. It may be combined with the other masks: a key is
            visible if all of them allow it.
        window_left: the largest distance of a key before the query; None is any distance. For LongT5's local attention
            set both sides to its radius; for a decoder whose queries see W keys, their own included, set W - 1 here.
            The time grows with the window, not with the number of keys.
        window_right: the largest distance of a key after the query; None is any distance.
        prefix_lengths: number of keys at the beginning of each sequence, [batch], that every query sees despite a
            causal mask (prefix-LM); None is 0 for all.
        key_bias: float32 [heads, key_length], a finite number for each key, added to q.k in addition to the table's
            bias; None is none. Falcon's ALiBi is an example.
        query_segments: packs several sequences into each row of the batch, like FlashAttention's cu_seqlens: the index
            at which the queries of each sequence begin, ascending, counted over all rows laid end to end (row b begins
            at b * query_length); the first sequence of a row begins with the row. A query sees only keys of its own
            sequence, and positions restart with each sequence. Can be combined only with mask, window, scale and bias.
        key_segments: where the keys of each of these sequences begin; None is query_segments, if query_length =
            key_length.
        kv_rows: index of the sequence of k and v that each sequence of q reads, [batch]; the batch of k and v may then
            differ from q's, for example if beams share a source. None: each sequence reads its own.
        first_head: the table's head that query head 0 uses, for a call with only some of the heads; None: all heads.
        product_precision: arithmetic of the products, "float32" or "bfloat16"; None follows the dtypes.
        output_dtype: element type of the output; None is that of q.
        return_log_sum_exp: also return the natural log-sum-exp of each row's logits.
        out: array that the output is written into; None: a new one. May overlap q, k and v. After an error its
            contents are undefined.

    Example:
        >>> request = attnd.ComputeRequest(q, k, v, "t5-tiny", mask="none")
        >>> client.compute(request).output.shape
        (1, 8, 16, 64)
        >>> padded = np.arange(16) < 12
        >>> client.compute(attnd.ComputeRequest(q, k, v, None, key_mask=padded[None])).version
        0
    """

    q: Any
    k: Any
    v: Any
    model: Optional[str]
    table: Optional[str] = None
    version: int = 0
    layout: str = "bhsd"
    mask: Optional[str] = None
    scale: Optional[float] = None
    query_offset: Optional[int] = None
    query_lengths: Optional[Sequence[int]] = None
    key_lengths: Optional[Sequence[int]] = None
    first_head: Optional[int] = None
    product_precision: Any = None
    output_dtype: Any = None
    return_log_sum_exp: bool = False
    out: Any = None
    query_offsets: Optional[Sequence[int]] = None
    key_starts: Optional[Sequence[int]] = None
    key_mask: Any = None
    window_left: Optional[int] = None
    window_right: Optional[int] = None
    prefix_lengths: Optional[Sequence[int]] = None
    key_bias: Any = None
    query_segments: Optional[Sequence[int]] = None
    key_segments: Optional[Sequence[int]] = None
    kv_rows: Optional[Sequence[int]] = None

    def __repr__(self) -> str:
        arrays = [f"{name} {_described(getattr(self, name))}" for name in ("q", "k", "v")]
        for name in _OTHER_ARRAYS:
            if getattr(self, name) is not None:
                arrays.append(f"{name} {_described(getattr(self, name))}")
        options = []
        for each in fields(self):
            value = getattr(self, each.name)
            by_default = type(value) is type(each.default) and value == each.default
            if each.name not in ("q", "k", "v", "model", *_OTHER_ARRAYS) and not by_default:
                options.append(f"{each.name}={value!r}")
        return f"ComputeRequest({', '.join(arrays)}; {', '.join([repr(self.model), *options])})"


class Shape(NamedTuple):
    """Counts of elements."""

    batch: int
    heads: int
    kv_heads: int
    query_length: int
    key_length: int
    head_dim: int
    value_head_dim: int
    kv_batch: int  # of k and v; differs from batch only with kv_rows


class Call:
    """A checked request. Immutable; only the message that `header` returns may be changed.

    Attributes:
        kind: of the caller's arrays and of the result.
        shape: counts of elements.
        sequence_first: the order of the axes of `q`, `k`, `v` here and on the wire; may differ from the caller's.
        q, k, v: views of the caller's memory, [batch, heads, sequence, dim] or with the sequence first; any strides.
        code: their attnd.v1.Dtype.
        output_code: the output's.
        output_shape: sizes of the output on the wire.
        output_bytes: bytes of the output.
        log_sum_exp_shape: [batch, heads, query_length]; None if it was not asked for.
        out: view of the caller's memory for the output, with the axes of the wire; None: new memory is allocated.
        has_bias: whether a model's bias is added.
        out_overlaps: whether `out` may overlap q, k or v.
    """

    __slots__ = (
        "_small",
        "_swapped",
        "code",
        "has_bias",
        "k",
        "kind",
        "log_sum_exp_shape",
        "out",
        "out_overlaps",
        "output_bytes",
        "output_code",
        "output_shape",
        "q",
        "request",
        "sequence_first",
        "shape",
        "v",
    )

    def __init__(self, request: ComputeRequest) -> None:
        self.request = request
        sequence_first = one_of("layout", LAYOUTS, request.layout)
        q = _tensors.view("q", request.q, sequence_first)
        k = _tensors.view("k", request.k, sequence_first)
        v = _tensors.view("v", request.v, sequence_first)
        _check_alike(q, "k", k)
        _check_alike(q, "v", v)
        self.has_bias = request.model is not None
        self.kind = q.kind
        self.code = q.code
        self.shape = _check_shape(q.array, k.array, v.array, sequence_first, request.kv_rows is not None)
        output_dtype = request.output_dtype
        self.output_code = q.code if output_dtype is None else _dtypes.parse("output_dtype", output_dtype)
        self._set_layout(q.array, k.array, v.array, sequence_first)
        self._set_out(request.out)
        s = self.shape
        self.log_sum_exp_shape: Optional[Tuple[int, ...]] = None
        if request.return_log_sum_exp:
            self.log_sum_exp_shape = (s.batch, s.heads, s.query_length)
        self._small = _small_fields(request, self)
        _check_bytes(self)

    @classmethod
    def of(cls, request: Any) -> Call:
        """Makes the call of a caller's request. Raises InvalidArgument if it is not a ComputeRequest."""
        if not isinstance(request, ComputeRequest):
            raise InvalidArgument.of("request", "an attnd.ComputeRequest", f"a {type(request).__qualname__}")
        return cls(request)

    def small(self) -> attention_pb2.ComputeAttentionRequest:
        """Everything but the tensors; must not be changed."""
        return self._small

    def header(self) -> attention_pb2.ComputeAttentionRequest:
        """A copy of everything but the tensors, to which the caller may add."""
        message = attention_pb2.ComputeAttentionRequest()
        message.CopyFrom(self._small)
        return message

    def header_bytes(self) -> bytes:
        """Everything but the tensors, serialised."""
        return self._small.SerializeToString()

    def output(self, array: np.ndarray[Any, Any]) -> Any:
        """The output for the caller, over the memory of `array` (axes as on the wire); `out` itself if it was given."""
        if self.request.out is not None:
            return self.request.out
        return self.kind.result(array.swapaxes(1, 2) if self._swapped else array, self.output_code)

    def log_sum_exp(self, array: np.ndarray[Any, Any]) -> Any:
        """The log-sum-exp for the caller, over the memory of `array`."""
        return self.kind.result(array, _dtypes.FP32)

    def _set_layout(self, q: Any, k: Any, v: Any, sequence_first: bool) -> None:
        """Chooses the order of axes for which fewer bytes have to be copied: the caller's arrays may be transposed
        views of contiguous arrays in the other order."""
        self.q, self.k, self.v = q, k, v
        self._swapped = False
        if not (q.flags.c_contiguous and k.flags.c_contiguous and v.flags.c_contiguous):
            other = [array.swapaxes(1, 2) for array in (q, k, v)]
            if _strided_bytes(other) < _strided_bytes((q, k, v)):
                self.q, self.k, self.v = other
                self._swapped = True
        self.sequence_first = sequence_first != self._swapped
        self.output_shape: Tuple[int, ...] = (*self.q.shape[:3], self.shape.value_head_dim)
        self.output_bytes = math.prod(self.output_shape) * _dtypes.SIZES[self.output_code]

    def _set_out(self, out: Any) -> None:
        self.out: Optional[np.ndarray[Any, Any]] = None
        self.out_overlaps = False
        if out is None:
            self.kind.check_result(self.output_code)
            return
        shape = self.output_shape
        asked = (shape[0], shape[2], shape[1], shape[3]) if self._swapped else shape
        array = _tensors.destination("out", out, self.output_code, asked)
        self.out = array.swapaxes(1, 2) if self._swapped else array
        self.out_overlaps = any(np.may_share_memory(array, tensor) for tensor in (self.q, self.k, self.v))


@dataclass(eq=False)
class ComputeReply:
    """The result of one call.

    Attributes:
        output: [batch, heads, query_length, value_head_dim] in the request's layout, of the kind of ``q``; the
            request's ``out`` if that was given.
        log_sum_exp: float32 [batch, heads, query_length] in either layout, -infinity where a row sees no key; None if
            it was not asked for.
        version: of the model that was used; 0 without a model.
        content_hash: of that version; "" without a model.
        queue_time: seconds from the request's arrival at the server to the start of its computation. For a large call
            that was sent in pieces, the longest queue time of a piece.
        compute_time: seconds of the computation; for a call in pieces, the sum over the pieces.
        transport: the transport of the call, for example "grpc".
    """

    output: Any
    log_sum_exp: Any
    version: int
    content_hash: str
    queue_time: float
    compute_time: float
    transport: str

    def __repr__(self) -> str:
        found = [f"output {_described(self.output)}"]
        if self.log_sum_exp is not None:
            found.append(f"log_sum_exp {_described(self.log_sum_exp)}")
        times = f"queue_time={self.queue_time:.3g}, compute_time={self.compute_time:.3g}"
        return f"ComputeReply({', '.join(found)}; version={self.version}, {times}, transport={self.transport!r})"


def _described(array: Any) -> str:
    """For example "float32 (1, 8, 16, 64)"; the type's name if the object has no dtype and shape."""
    dtype, shape = getattr(array, "dtype", None), getattr(array, "shape", None)
    if dtype is None or shape is None:
        return f"a {type(array).__qualname__}"
    return f"{dtype} {tuple(shape)}"


def mask_number(value: Optional[str]) -> int:
    """The attnd.v1.Mask of a mask's name."""
    number: int = one_of("mask", MASKS, value)
    return number


def _strided_bytes(arrays: Sequence[np.ndarray[Any, Any]]) -> int:
    return sum(array.nbytes for array in arrays if not array.flags.c_contiguous)


def _check_alike(q: _tensors.Tensor, name: str, other: _tensors.Tensor) -> None:
    if other.kind.name != q.kind.name:
        raise InvalidArgument.of(name, f"a {q.kind.name} as q is", f"a {other.kind.name}")
    if other.code != q.code:
        raise InvalidArgument.of(f"{name}.dtype", f"{_dtypes.NAMES[q.code]} as q has", _dtypes.NAMES[other.code])


def _check_same(name: str, like: str, expected: int, got: int) -> None:
    if expected != got:
        raise InvalidArgument.of(name, f"{expected} as {like} has", str(got))


def _check_batch(q: int, k: int, v: int) -> None:
    """If two of the three agree, the error names the third, and otherwise k."""
    if k == v:
        _check_same("q.batch", "k and v", k, q)
    elif q == k:
        _check_same("v.batch", "q and k", q, v)
    else:
        _check_same("k.batch", "q and v" if q == v else "q", q, k)


def _check_key_heads(q: int, k: int, v: int) -> None:
    """Checks that k and v have the same number of heads, a divisor of q's. The error names the one that cannot be
    right."""
    if k == v:
        if q % k != 0:
            raise InvalidArgument.of("kv_heads", f"a divisor of heads, which is {q}", str(k))
    elif q == v:
        _check_same("k.heads", "q and v", v, k)
    elif q == k:
        _check_same("v.heads", "q and k", k, v)
    elif q % v == 0 and q % k != 0:
        _check_same("k.heads", "v", v, k)
    else:
        _check_same("v.heads", "k", k, v)


def _check_shape(q: Any, k: Any, v: Any, sequence_first: bool, shares_keys: bool) -> Shape:
    heads, sequence = (2, 1) if sequence_first else (1, 2)
    for name, array in (("q", q), ("k", k), ("v", v)):
        if array.size == 0:
            for axis, index in (("batch", 0), ("heads", heads), ("sequence", sequence), ("head_dim", 3)):
                if array.shape[index] == 0:
                    raise InvalidArgument.of(f"{name}.{axis}", "at least 1", "0")
    qs, ks, vs = q.shape, k.shape, v.shape
    if shares_keys:
        _check_same("v.batch", "k", ks[0], vs[0])
    else:
        _check_batch(qs[0], ks[0], vs[0])
    _check_same("k.head_dim", "q", qs[3], ks[3])
    _check_same("v.sequence", "k", ks[sequence], vs[sequence])
    _check_key_heads(qs[heads], ks[heads], vs[heads])
    return Shape(qs[0], qs[heads], ks[heads], qs[sequence], ks[sequence], qs[3], vs[3], ks[0])


def _check_bytes(call: Call) -> None:
    if call.q.nbytes + call.k.nbytes + call.v.nbytes > _MAX_MESSAGE_BYTES:
        raise ResourceExhausted.of(
            "q, k and v",
            f"at most {_MAX_MESSAGE_BYTES} bytes (a protobuf message)",
            f"{call.q.nbytes + call.k.nbytes + call.v.nbytes} bytes",
        )
    if call.output_bytes > _MAX_MESSAGE_BYTES:
        expected = f"at most {_MAX_MESSAGE_BYTES} bytes (a protobuf message)"
        raise ResourceExhausted.of("output", expected, str(call.output_bytes))


def scale_number(value: Any, name: str = "scale") -> float:
    try:
        scale = float(value)
    except (TypeError, ValueError):
        raise InvalidArgument.of(name, "a finite number", repr(value)[:80]) from None
    if not abs(scale) <= _MAX_FLOAT:
        raise InvalidArgument.of(name, "a finite number", str(scale))
    return scale


def precision_number(value: Any) -> int:
    if value is None:
        return 0
    number = _PRECISIONS.get(_dtypes.parse("product_precision", value))
    if number is None:
        raise InvalidArgument.of("product_precision", "float32 or bfloat16", str(value)[:80])
    return number


def _model_fields(r: ComputeRequest) -> Dict[str, Any]:
    """The fields that select the bias."""
    if r.model is None:
        for name in ("version", "table", "first_head"):
            value = getattr(r, name)
            if value is not None and not (name == "version" and value == 0):
                raise InvalidArgument.of(name, "none without a model", repr(value)[:80])
        return {"bias": _BIAS_NONE}
    found: Dict[str, Any] = {"model": model_name(r.model), "version": integer("version", r.version, 0, 2**64 - 1)}
    if r.table is not None:
        found["table"] = text("table", r.table, '"decoder", "encoder", "decoder.N" or "encoder.N"')
    if r.first_head is not None:
        found["first_head"] = integer("first_head", r.first_head)
    return found


def _sequence_fields(r: ComputeRequest, shape: Shape) -> Dict[str, Any]:
    """The fields for positions and masks."""
    found: Dict[str, Any] = {}
    offsets = (-shape.query_length, _MAX_POSITION - shape.query_length)
    if r.query_offset is not None:
        found["query_offset"] = integer("query_offset", r.query_offset, *offsets)
    for name, lowest, highest in (
        ("query_offsets", *offsets),
        ("query_lengths", 0, shape.query_length),
        ("key_lengths", 0, shape.key_length),
        ("key_starts", 0, shape.key_length),
        ("prefix_lengths", 0, shape.key_length),
    ):
        value = getattr(r, name)
        if value is not None:
            found[name] = _masks.each_sequence(name, value, shape.batch, lowest, highest)
    if r.query_offset is not None and found.get("query_offsets"):
        raise InvalidArgument.of("query_offsets", "none beside query_offset", f"{shape.batch} values")
    # With a model and mask=None the mask is the table's, which only the server knows.
    if found.get("prefix_lengths") and (r.mask == "none" or (r.mask is None and r.model is None)):
        raise InvalidArgument.of("prefix_lengths", "none without a causal mask", f"{shape.batch} values")
    if r.key_mask is not None:
        found["key_bits"] = _masks.key_bits(r.key_mask, shape.batch, shape.key_length)
    for name in ("window_left", "window_right"):
        value = getattr(r, name)
        if value is not None:
            found[name] = integer(name, value, 0, _MAX_POSITION)
    if r.kv_rows is not None:
        found["kv_rows"] = _masks.each_sequence("kv_rows", r.kv_rows, shape.batch, 0, shape.kv_batch - 1)
        if not found["kv_rows"] and shape.kv_batch != shape.batch:
            raise InvalidArgument.of("kv_rows", f"{shape.batch} (batch) values", "none")
        found["kv_batch"] = shape.kv_batch
    if r.query_segments is not None or r.key_segments is not None:
        found.update(_segments(r, shape, found))
    if r.key_bias is not None:
        found["key_bias"] = _masks.key_bias(r.key_bias, shape.heads, shape.key_length)
    return found


def _segments(r: ComputeRequest, shape: Shape, others: Dict[str, Any]) -> Dict[str, Any]:
    """query_segments and key_segments, which exclude the other fields that describe sequences."""
    queries, keys = _masks.segments(r.query_segments, r.key_segments, shape.batch, shape.query_length, shape.key_length)
    if queries:
        for name in _NOT_WITH_SEGMENTS:
            value = others.get(_ON_THE_WIRE.get(name, name))
            given = getattr(r, name) is not None if name in ("key_bias", "query_offset") else value
            if given:
                raise InvalidArgument.of(name, "none with query_segments", f"{np.size(getattr(r, name))} values")
    return {"query_segments": queries, "key_segments": keys}


def _small_fields(r: ComputeRequest, call: Call) -> attention_pb2.ComputeAttentionRequest:
    shape = call.shape
    optional: Dict[str, Any] = {}
    if r.scale is not None:
        optional["scale"] = scale_number(r.scale)
    return attention_pb2.ComputeAttentionRequest(
        batch=shape.batch,
        heads=shape.heads,
        kv_heads=shape.kv_heads,
        query_length=shape.query_length,
        key_length=shape.key_length,
        head_dim=shape.head_dim,
        value_head_dim=shape.value_head_dim,
        dtype=call.code,  # type: ignore[arg-type]
        layout=2 if call.sequence_first else 1,  # type: ignore[arg-type]
        mask=mask_number(r.mask),  # type: ignore[arg-type]
        output_dtype=call.output_code,  # type: ignore[arg-type]
        return_log_sum_exp=bool(r.return_log_sum_exp),
        product_precision=precision_number(r.product_precision),  # type: ignore[arg-type]
        **_model_fields(r),
        **_sequence_fields(r, shape),
        **optional,
    )
