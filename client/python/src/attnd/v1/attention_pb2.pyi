from attnd.v1 import types_pb2 as _types_pb2
from google.protobuf import duration_pb2 as _duration_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Iterable as _Iterable, Mapping as _Mapping, Optional as _Optional, Union as _Union

BIAS_NONE: Bias
BIAS_UNSPECIFIED: Bias
DESCRIPTOR: _descriptor.FileDescriptor
LAYOUT_BATCH_HEAD_SEQUENCE_DIM: Layout
LAYOUT_BATCH_SEQUENCE_HEAD_DIM: Layout
LAYOUT_UNSPECIFIED: Layout
PRODUCT_PRECISION_BF16: ProductPrecision
PRODUCT_PRECISION_FP32: ProductPrecision
PRODUCT_PRECISION_UNSPECIFIED: ProductPrecision

class ComputeAttentionRequest(_message.Message):
    __slots__ = ["batch", "bias", "dtype", "first_head", "head_dim", "heads", "k", "k_shared", "key_bias", "key_bits", "key_length", "key_lengths", "key_segments", "key_starts", "kv_batch", "kv_heads", "kv_rows", "layout", "log_sum_exp_shared", "mask", "model", "output_dtype", "output_shared", "prefix_lengths", "product_precision", "q", "q_shared", "query_length", "query_lengths", "query_offset", "query_offsets", "query_segments", "return_log_sum_exp", "scale", "table", "table_heads", "v", "v_shared", "value_head_dim", "version", "window_left", "window_right"]
    BATCH_FIELD_NUMBER: _ClassVar[int]
    BIAS_FIELD_NUMBER: _ClassVar[int]
    DTYPE_FIELD_NUMBER: _ClassVar[int]
    FIRST_HEAD_FIELD_NUMBER: _ClassVar[int]
    HEADS_FIELD_NUMBER: _ClassVar[int]
    HEAD_DIM_FIELD_NUMBER: _ClassVar[int]
    KEY_BIAS_FIELD_NUMBER: _ClassVar[int]
    KEY_BITS_FIELD_NUMBER: _ClassVar[int]
    KEY_LENGTHS_FIELD_NUMBER: _ClassVar[int]
    KEY_LENGTH_FIELD_NUMBER: _ClassVar[int]
    KEY_SEGMENTS_FIELD_NUMBER: _ClassVar[int]
    KEY_STARTS_FIELD_NUMBER: _ClassVar[int]
    KV_BATCH_FIELD_NUMBER: _ClassVar[int]
    KV_HEADS_FIELD_NUMBER: _ClassVar[int]
    KV_ROWS_FIELD_NUMBER: _ClassVar[int]
    K_FIELD_NUMBER: _ClassVar[int]
    K_SHARED_FIELD_NUMBER: _ClassVar[int]
    LAYOUT_FIELD_NUMBER: _ClassVar[int]
    LOG_SUM_EXP_SHARED_FIELD_NUMBER: _ClassVar[int]
    MASK_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_DTYPE_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_SHARED_FIELD_NUMBER: _ClassVar[int]
    PREFIX_LENGTHS_FIELD_NUMBER: _ClassVar[int]
    PRODUCT_PRECISION_FIELD_NUMBER: _ClassVar[int]
    QUERY_LENGTHS_FIELD_NUMBER: _ClassVar[int]
    QUERY_LENGTH_FIELD_NUMBER: _ClassVar[int]
    QUERY_OFFSETS_FIELD_NUMBER: _ClassVar[int]
    QUERY_OFFSET_FIELD_NUMBER: _ClassVar[int]
    QUERY_SEGMENTS_FIELD_NUMBER: _ClassVar[int]
    Q_FIELD_NUMBER: _ClassVar[int]
    Q_SHARED_FIELD_NUMBER: _ClassVar[int]
    RETURN_LOG_SUM_EXP_FIELD_NUMBER: _ClassVar[int]
    SCALE_FIELD_NUMBER: _ClassVar[int]
    TABLE_FIELD_NUMBER: _ClassVar[int]
    TABLE_HEADS_FIELD_NUMBER: _ClassVar[int]
    VALUE_HEAD_DIM_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    V_FIELD_NUMBER: _ClassVar[int]
    V_SHARED_FIELD_NUMBER: _ClassVar[int]
    WINDOW_LEFT_FIELD_NUMBER: _ClassVar[int]
    WINDOW_RIGHT_FIELD_NUMBER: _ClassVar[int]
    batch: int
    bias: Bias
    dtype: _types_pb2.Dtype
    first_head: int
    head_dim: int
    heads: int
    k: bytes
    k_shared: SharedTensor
    key_bias: _containers.RepeatedScalarFieldContainer[float]
    key_bits: bytes
    key_length: int
    key_lengths: _containers.RepeatedScalarFieldContainer[int]
    key_segments: _containers.RepeatedScalarFieldContainer[int]
    key_starts: _containers.RepeatedScalarFieldContainer[int]
    kv_batch: int
    kv_heads: int
    kv_rows: _containers.RepeatedScalarFieldContainer[int]
    layout: Layout
    log_sum_exp_shared: SharedTensor
    mask: _types_pb2.Mask
    model: str
    output_dtype: _types_pb2.Dtype
    output_shared: SharedTensor
    prefix_lengths: _containers.RepeatedScalarFieldContainer[int]
    product_precision: ProductPrecision
    q: bytes
    q_shared: SharedTensor
    query_length: int
    query_lengths: _containers.RepeatedScalarFieldContainer[int]
    query_offset: int
    query_offsets: _containers.RepeatedScalarFieldContainer[int]
    query_segments: _containers.RepeatedScalarFieldContainer[int]
    return_log_sum_exp: bool
    scale: float
    table: str
    table_heads: int
    v: bytes
    v_shared: SharedTensor
    value_head_dim: int
    version: int
    window_left: int
    window_right: int
    def __init__(self, model: _Optional[str] = ..., version: _Optional[int] = ..., table: _Optional[str] = ..., batch: _Optional[int] = ..., heads: _Optional[int] = ..., kv_heads: _Optional[int] = ..., query_length: _Optional[int] = ..., key_length: _Optional[int] = ..., head_dim: _Optional[int] = ..., value_head_dim: _Optional[int] = ..., dtype: _Optional[_Union[_types_pb2.Dtype, str]] = ..., layout: _Optional[_Union[Layout, str]] = ..., mask: _Optional[_Union[_types_pb2.Mask, str]] = ..., scale: _Optional[float] = ..., query_offset: _Optional[int] = ..., query_lengths: _Optional[_Iterable[int]] = ..., key_lengths: _Optional[_Iterable[int]] = ..., output_dtype: _Optional[_Union[_types_pb2.Dtype, str]] = ..., return_log_sum_exp: bool = ..., product_precision: _Optional[_Union[ProductPrecision, str]] = ..., first_head: _Optional[int] = ..., q_shared: _Optional[_Union[SharedTensor, _Mapping]] = ..., k_shared: _Optional[_Union[SharedTensor, _Mapping]] = ..., v_shared: _Optional[_Union[SharedTensor, _Mapping]] = ..., output_shared: _Optional[_Union[SharedTensor, _Mapping]] = ..., table_heads: _Optional[int] = ..., log_sum_exp_shared: _Optional[_Union[SharedTensor, _Mapping]] = ..., bias: _Optional[_Union[Bias, str]] = ..., query_offsets: _Optional[_Iterable[int]] = ..., key_starts: _Optional[_Iterable[int]] = ..., key_bits: _Optional[bytes] = ..., window_left: _Optional[int] = ..., window_right: _Optional[int] = ..., prefix_lengths: _Optional[_Iterable[int]] = ..., key_bias: _Optional[_Iterable[float]] = ..., query_segments: _Optional[_Iterable[int]] = ..., key_segments: _Optional[_Iterable[int]] = ..., kv_batch: _Optional[int] = ..., kv_rows: _Optional[_Iterable[int]] = ..., q: _Optional[bytes] = ..., k: _Optional[bytes] = ..., v: _Optional[bytes] = ...) -> None: ...

class ComputeAttentionResponse(_message.Message):
    __slots__ = ["compute_time", "content_hash", "dtype", "log_sum_exp", "output", "queue_time", "version"]
    COMPUTE_TIME_FIELD_NUMBER: _ClassVar[int]
    CONTENT_HASH_FIELD_NUMBER: _ClassVar[int]
    DTYPE_FIELD_NUMBER: _ClassVar[int]
    LOG_SUM_EXP_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_FIELD_NUMBER: _ClassVar[int]
    QUEUE_TIME_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    compute_time: _duration_pb2.Duration
    content_hash: str
    dtype: _types_pb2.Dtype
    log_sum_exp: bytes
    output: bytes
    queue_time: _duration_pb2.Duration
    version: int
    def __init__(self, version: _Optional[int] = ..., content_hash: _Optional[str] = ..., dtype: _Optional[_Union[_types_pb2.Dtype, str]] = ..., queue_time: _Optional[_Union[_duration_pb2.Duration, _Mapping]] = ..., compute_time: _Optional[_Union[_duration_pb2.Duration, _Mapping]] = ..., log_sum_exp: _Optional[bytes] = ..., output: _Optional[bytes] = ...) -> None: ...

class SharedTensor(_message.Message):
    __slots__ = ["offset", "region"]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    REGION_FIELD_NUMBER: _ClassVar[int]
    offset: int
    region: bytes
    def __init__(self, region: _Optional[bytes] = ..., offset: _Optional[int] = ...) -> None: ...

class StreamAttentionRequest(_message.Message):
    __slots__ = ["call", "id", "k", "more", "q", "v"]
    CALL_FIELD_NUMBER: _ClassVar[int]
    ID_FIELD_NUMBER: _ClassVar[int]
    K_FIELD_NUMBER: _ClassVar[int]
    MORE_FIELD_NUMBER: _ClassVar[int]
    Q_FIELD_NUMBER: _ClassVar[int]
    V_FIELD_NUMBER: _ClassVar[int]
    call: ComputeAttentionRequest
    id: int
    k: bytes
    more: bool
    q: bytes
    v: bytes
    def __init__(self, id: _Optional[int] = ..., call: _Optional[_Union[ComputeAttentionRequest, _Mapping]] = ..., more: bool = ..., q: _Optional[bytes] = ..., k: _Optional[bytes] = ..., v: _Optional[bytes] = ...) -> None: ...

class StreamAttentionResponse(_message.Message):
    __slots__ = ["code", "detail", "going_away", "id", "log_sum_exp", "message", "output", "result"]
    CODE_FIELD_NUMBER: _ClassVar[int]
    DETAIL_FIELD_NUMBER: _ClassVar[int]
    GOING_AWAY_FIELD_NUMBER: _ClassVar[int]
    ID_FIELD_NUMBER: _ClassVar[int]
    LOG_SUM_EXP_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_FIELD_NUMBER: _ClassVar[int]
    RESULT_FIELD_NUMBER: _ClassVar[int]
    code: int
    detail: _types_pb2.ErrorDetail
    going_away: bool
    id: int
    log_sum_exp: bytes
    message: str
    output: bytes
    result: ComputeAttentionResponse
    def __init__(self, id: _Optional[int] = ..., code: _Optional[int] = ..., message: _Optional[str] = ..., detail: _Optional[_Union[_types_pb2.ErrorDetail, _Mapping]] = ..., result: _Optional[_Union[ComputeAttentionResponse, _Mapping]] = ..., going_away: bool = ..., log_sum_exp: _Optional[bytes] = ..., output: _Optional[bytes] = ...) -> None: ...

class Layout(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = []

class ProductPrecision(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = []

class Bias(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = []
