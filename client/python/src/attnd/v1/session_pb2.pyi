from attnd.v1 import attention_pb2 as _attention_pb2
from attnd.v1 import types_pb2 as _types_pb2
from google.protobuf import duration_pb2 as _duration_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Iterable as _Iterable, Mapping as _Mapping, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor
SESSION_LAYER_KIND_CROSS: SessionLayerKind
SESSION_LAYER_KIND_SELF: SessionLayerKind
SESSION_LAYER_KIND_UNSPECIFIED: SessionLayerKind

class EvictSessionRequest(_message.Message):
    __slots__ = ["id"]
    ID_FIELD_NUMBER: _ClassVar[int]
    id: int
    def __init__(self, id: _Optional[int] = ...) -> None: ...

class EvictSessionResponse(_message.Message):
    __slots__ = []
    def __init__(self) -> None: ...

class ListSessionsRequest(_message.Message):
    __slots__ = []
    def __init__(self) -> None: ...

class ListSessionsResponse(_message.Message):
    __slots__ = ["sessions"]
    SESSIONS_FIELD_NUMBER: _ClassVar[int]
    sessions: _containers.RepeatedCompositeFieldContainer[SessionInfo]
    def __init__(self, sessions: _Optional[_Iterable[_Union[SessionInfo, _Mapping]]] = ...) -> None: ...

class SessionCancel(_message.Message):
    __slots__ = ["step"]
    STEP_FIELD_NUMBER: _ClassVar[int]
    step: int
    def __init__(self, step: _Optional[int] = ...) -> None: ...

class SessionClose(_message.Message):
    __slots__ = []
    def __init__(self) -> None: ...

class SessionGoingAway(_message.Message):
    __slots__ = ["time_left"]
    TIME_LEFT_FIELD_NUMBER: _ClassVar[int]
    time_left: _duration_pb2.Duration
    def __init__(self, time_left: _Optional[_Union[_duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class SessionInfo(_message.Message):
    __slots__ = ["age", "id", "idle", "layers", "model", "peer", "reserved_bytes", "rows", "sources", "steps", "used_bytes", "version"]
    AGE_FIELD_NUMBER: _ClassVar[int]
    IDLE_FIELD_NUMBER: _ClassVar[int]
    ID_FIELD_NUMBER: _ClassVar[int]
    LAYERS_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    PEER_FIELD_NUMBER: _ClassVar[int]
    RESERVED_BYTES_FIELD_NUMBER: _ClassVar[int]
    ROWS_FIELD_NUMBER: _ClassVar[int]
    SOURCES_FIELD_NUMBER: _ClassVar[int]
    STEPS_FIELD_NUMBER: _ClassVar[int]
    USED_BYTES_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    age: _duration_pb2.Duration
    id: int
    idle: _duration_pb2.Duration
    layers: int
    model: str
    peer: str
    reserved_bytes: int
    rows: int
    sources: int
    steps: int
    used_bytes: int
    version: int
    def __init__(self, id: _Optional[int] = ..., peer: _Optional[str] = ..., model: _Optional[str] = ..., version: _Optional[int] = ..., rows: _Optional[int] = ..., sources: _Optional[int] = ..., layers: _Optional[int] = ..., reserved_bytes: _Optional[int] = ..., used_bytes: _Optional[int] = ..., steps: _Optional[int] = ..., age: _Optional[_Union[_duration_pb2.Duration, _Mapping]] = ..., idle: _Optional[_Union[_duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class SessionLayer(_message.Message):
    __slots__ = ["bias", "head_dim", "heads", "kind", "kv_heads", "scale", "table", "value_head_dim"]
    BIAS_FIELD_NUMBER: _ClassVar[int]
    HEADS_FIELD_NUMBER: _ClassVar[int]
    HEAD_DIM_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    KV_HEADS_FIELD_NUMBER: _ClassVar[int]
    SCALE_FIELD_NUMBER: _ClassVar[int]
    TABLE_FIELD_NUMBER: _ClassVar[int]
    VALUE_HEAD_DIM_FIELD_NUMBER: _ClassVar[int]
    bias: _attention_pb2.Bias
    head_dim: int
    heads: int
    kind: SessionLayerKind
    kv_heads: int
    scale: float
    table: str
    value_head_dim: int
    def __init__(self, kind: _Optional[_Union[SessionLayerKind, str]] = ..., table: _Optional[str] = ..., bias: _Optional[_Union[_attention_pb2.Bias, str]] = ..., heads: _Optional[int] = ..., kv_heads: _Optional[int] = ..., head_dim: _Optional[int] = ..., value_head_dim: _Optional[int] = ..., scale: _Optional[float] = ...) -> None: ...

class SessionOpen(_message.Message):
    __slots__ = ["dtype", "grace", "layers", "max_source_tokens", "max_tokens", "model", "row_sources", "rows", "sources", "version"]
    DTYPE_FIELD_NUMBER: _ClassVar[int]
    GRACE_FIELD_NUMBER: _ClassVar[int]
    LAYERS_FIELD_NUMBER: _ClassVar[int]
    MAX_SOURCE_TOKENS_FIELD_NUMBER: _ClassVar[int]
    MAX_TOKENS_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    ROWS_FIELD_NUMBER: _ClassVar[int]
    ROW_SOURCES_FIELD_NUMBER: _ClassVar[int]
    SOURCES_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    dtype: _types_pb2.Dtype
    grace: _duration_pb2.Duration
    layers: _containers.RepeatedCompositeFieldContainer[SessionLayer]
    max_source_tokens: int
    max_tokens: int
    model: str
    row_sources: _containers.RepeatedScalarFieldContainer[int]
    rows: int
    sources: int
    version: int
    def __init__(self, model: _Optional[str] = ..., version: _Optional[int] = ..., rows: _Optional[int] = ..., sources: _Optional[int] = ..., layers: _Optional[_Iterable[_Union[SessionLayer, _Mapping]]] = ..., dtype: _Optional[_Union[_types_pb2.Dtype, str]] = ..., max_tokens: _Optional[int] = ..., max_source_tokens: _Optional[int] = ..., row_sources: _Optional[_Iterable[int]] = ..., grace: _Optional[_Union[_duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class SessionOpened(_message.Message):
    __slots__ = ["content_hash", "grace_time", "idle_time", "last_step", "lease_time", "life_time", "max_message_bytes", "page_tokens", "reserved_bytes", "resume_token", "version"]
    CONTENT_HASH_FIELD_NUMBER: _ClassVar[int]
    GRACE_TIME_FIELD_NUMBER: _ClassVar[int]
    IDLE_TIME_FIELD_NUMBER: _ClassVar[int]
    LAST_STEP_FIELD_NUMBER: _ClassVar[int]
    LEASE_TIME_FIELD_NUMBER: _ClassVar[int]
    LIFE_TIME_FIELD_NUMBER: _ClassVar[int]
    MAX_MESSAGE_BYTES_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKENS_FIELD_NUMBER: _ClassVar[int]
    RESERVED_BYTES_FIELD_NUMBER: _ClassVar[int]
    RESUME_TOKEN_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    content_hash: str
    grace_time: _duration_pb2.Duration
    idle_time: _duration_pb2.Duration
    last_step: int
    lease_time: _duration_pb2.Duration
    life_time: _duration_pb2.Duration
    max_message_bytes: int
    page_tokens: int
    reserved_bytes: int
    resume_token: bytes
    version: int
    def __init__(self, version: _Optional[int] = ..., content_hash: _Optional[str] = ..., reserved_bytes: _Optional[int] = ..., page_tokens: _Optional[int] = ..., idle_time: _Optional[_Union[_duration_pb2.Duration, _Mapping]] = ..., life_time: _Optional[_Union[_duration_pb2.Duration, _Mapping]] = ..., max_message_bytes: _Optional[int] = ..., lease_time: _Optional[_Union[_duration_pb2.Duration, _Mapping]] = ..., resume_token: _Optional[bytes] = ..., grace_time: _Optional[_Union[_duration_pb2.Duration, _Mapping]] = ..., last_step: _Optional[int] = ...) -> None: ...

class SessionReply(_message.Message):
    __slots__ = ["going_away", "log_sum_exp", "opened", "output", "result"]
    GOING_AWAY_FIELD_NUMBER: _ClassVar[int]
    LOG_SUM_EXP_FIELD_NUMBER: _ClassVar[int]
    OPENED_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_FIELD_NUMBER: _ClassVar[int]
    RESULT_FIELD_NUMBER: _ClassVar[int]
    going_away: SessionGoingAway
    log_sum_exp: bytes
    opened: SessionOpened
    output: bytes
    result: SessionStepResult
    def __init__(self, opened: _Optional[_Union[SessionOpened, _Mapping]] = ..., result: _Optional[_Union[SessionStepResult, _Mapping]] = ..., going_away: _Optional[_Union[SessionGoingAway, _Mapping]] = ..., log_sum_exp: _Optional[bytes] = ..., output: _Optional[bytes] = ...) -> None: ...

class SessionRequest(_message.Message):
    __slots__ = ["cancel", "close", "k", "open", "q", "resume", "step", "v"]
    CANCEL_FIELD_NUMBER: _ClassVar[int]
    CLOSE_FIELD_NUMBER: _ClassVar[int]
    K_FIELD_NUMBER: _ClassVar[int]
    OPEN_FIELD_NUMBER: _ClassVar[int]
    Q_FIELD_NUMBER: _ClassVar[int]
    RESUME_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    V_FIELD_NUMBER: _ClassVar[int]
    cancel: SessionCancel
    close: SessionClose
    k: bytes
    open: SessionOpen
    q: bytes
    resume: SessionResume
    step: SessionStep
    v: bytes
    def __init__(self, open: _Optional[_Union[SessionOpen, _Mapping]] = ..., step: _Optional[_Union[SessionStep, _Mapping]] = ..., cancel: _Optional[_Union[SessionCancel, _Mapping]] = ..., resume: _Optional[_Union[SessionResume, _Mapping]] = ..., close: _Optional[_Union[SessionClose, _Mapping]] = ..., q: _Optional[bytes] = ..., k: _Optional[bytes] = ..., v: _Optional[bytes] = ...) -> None: ...

class SessionResume(_message.Message):
    __slots__ = ["token"]
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    token: bytes
    def __init__(self, token: _Optional[bytes] = ...) -> None: ...

class SessionStep(_message.Message):
    __slots__ = ["dtype", "expected_lengths", "k_shared", "key_bits", "key_bits_length", "key_length", "key_lengths", "key_starts", "layer", "layout", "log_sum_exp_shared", "output_dtype", "output_shared", "product_precision", "q_shared", "query_length", "query_lengths", "quiet", "reorder", "return_log_sum_exp", "step", "timeout", "truncate", "v_shared"]
    DTYPE_FIELD_NUMBER: _ClassVar[int]
    EXPECTED_LENGTHS_FIELD_NUMBER: _ClassVar[int]
    KEY_BITS_FIELD_NUMBER: _ClassVar[int]
    KEY_BITS_LENGTH_FIELD_NUMBER: _ClassVar[int]
    KEY_LENGTHS_FIELD_NUMBER: _ClassVar[int]
    KEY_LENGTH_FIELD_NUMBER: _ClassVar[int]
    KEY_STARTS_FIELD_NUMBER: _ClassVar[int]
    K_SHARED_FIELD_NUMBER: _ClassVar[int]
    LAYER_FIELD_NUMBER: _ClassVar[int]
    LAYOUT_FIELD_NUMBER: _ClassVar[int]
    LOG_SUM_EXP_SHARED_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_DTYPE_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_SHARED_FIELD_NUMBER: _ClassVar[int]
    PRODUCT_PRECISION_FIELD_NUMBER: _ClassVar[int]
    QUERY_LENGTHS_FIELD_NUMBER: _ClassVar[int]
    QUERY_LENGTH_FIELD_NUMBER: _ClassVar[int]
    QUIET_FIELD_NUMBER: _ClassVar[int]
    Q_SHARED_FIELD_NUMBER: _ClassVar[int]
    REORDER_FIELD_NUMBER: _ClassVar[int]
    RETURN_LOG_SUM_EXP_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    TIMEOUT_FIELD_NUMBER: _ClassVar[int]
    TRUNCATE_FIELD_NUMBER: _ClassVar[int]
    V_SHARED_FIELD_NUMBER: _ClassVar[int]
    dtype: _types_pb2.Dtype
    expected_lengths: _containers.RepeatedScalarFieldContainer[int]
    k_shared: _attention_pb2.SharedTensor
    key_bits: bytes
    key_bits_length: int
    key_length: int
    key_lengths: _containers.RepeatedScalarFieldContainer[int]
    key_starts: _containers.RepeatedScalarFieldContainer[int]
    layer: int
    layout: _attention_pb2.Layout
    log_sum_exp_shared: _attention_pb2.SharedTensor
    output_dtype: _types_pb2.Dtype
    output_shared: _attention_pb2.SharedTensor
    product_precision: _attention_pb2.ProductPrecision
    q_shared: _attention_pb2.SharedTensor
    query_length: int
    query_lengths: _containers.RepeatedScalarFieldContainer[int]
    quiet: bool
    reorder: _containers.RepeatedScalarFieldContainer[int]
    return_log_sum_exp: bool
    step: int
    timeout: _duration_pb2.Duration
    truncate: _containers.RepeatedScalarFieldContainer[int]
    v_shared: _attention_pb2.SharedTensor
    def __init__(self, step: _Optional[int] = ..., layer: _Optional[int] = ..., expected_lengths: _Optional[_Iterable[int]] = ..., reorder: _Optional[_Iterable[int]] = ..., truncate: _Optional[_Iterable[int]] = ..., key_starts: _Optional[_Iterable[int]] = ..., key_bits: _Optional[bytes] = ..., key_bits_length: _Optional[int] = ..., key_length: _Optional[int] = ..., key_lengths: _Optional[_Iterable[int]] = ..., query_length: _Optional[int] = ..., query_lengths: _Optional[_Iterable[int]] = ..., dtype: _Optional[_Union[_types_pb2.Dtype, str]] = ..., layout: _Optional[_Union[_attention_pb2.Layout, str]] = ..., output_dtype: _Optional[_Union[_types_pb2.Dtype, str]] = ..., return_log_sum_exp: bool = ..., product_precision: _Optional[_Union[_attention_pb2.ProductPrecision, str]] = ..., timeout: _Optional[_Union[_duration_pb2.Duration, _Mapping]] = ..., quiet: bool = ..., q_shared: _Optional[_Union[_attention_pb2.SharedTensor, _Mapping]] = ..., k_shared: _Optional[_Union[_attention_pb2.SharedTensor, _Mapping]] = ..., v_shared: _Optional[_Union[_attention_pb2.SharedTensor, _Mapping]] = ..., output_shared: _Optional[_Union[_attention_pb2.SharedTensor, _Mapping]] = ..., log_sum_exp_shared: _Optional[_Union[_attention_pb2.SharedTensor, _Mapping]] = ...) -> None: ...

class SessionStepResult(_message.Message):
    __slots__ = ["code", "compute_time", "detail", "dtype", "lengths", "message", "queue_time", "step", "used_bytes"]
    CODE_FIELD_NUMBER: _ClassVar[int]
    COMPUTE_TIME_FIELD_NUMBER: _ClassVar[int]
    DETAIL_FIELD_NUMBER: _ClassVar[int]
    DTYPE_FIELD_NUMBER: _ClassVar[int]
    LENGTHS_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    QUEUE_TIME_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    USED_BYTES_FIELD_NUMBER: _ClassVar[int]
    code: int
    compute_time: _duration_pb2.Duration
    detail: _types_pb2.ErrorDetail
    dtype: _types_pb2.Dtype
    lengths: _containers.RepeatedScalarFieldContainer[int]
    message: str
    queue_time: _duration_pb2.Duration
    step: int
    used_bytes: int
    def __init__(self, step: _Optional[int] = ..., code: _Optional[int] = ..., message: _Optional[str] = ..., detail: _Optional[_Union[_types_pb2.ErrorDetail, _Mapping]] = ..., lengths: _Optional[_Iterable[int]] = ..., dtype: _Optional[_Union[_types_pb2.Dtype, str]] = ..., used_bytes: _Optional[int] = ..., queue_time: _Optional[_Union[_duration_pb2.Duration, _Mapping]] = ..., compute_time: _Optional[_Union[_duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class SessionLayerKind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = []
