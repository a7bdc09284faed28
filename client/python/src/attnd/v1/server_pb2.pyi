from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Iterable as _Iterable, Mapping as _Mapping, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor
SETTING_STATE_IN_FORCE: SettingState
SETTING_STATE_NOT_IN_FORCE: SettingState
SETTING_STATE_REQUESTED: SettingState
SETTING_STATE_UNSPECIFIED: SettingState

class GetServerInfoRequest(_message.Message):
    __slots__ = []
    def __init__(self) -> None: ...

class GetServerInfoResponse(_message.Message):
    __slots__ = ["available_kernels", "kernel", "limits", "local_calls", "memory", "model_bytes", "queue", "sessions", "settings", "shared_memory", "stalled_calls", "started_at", "threads", "version"]
    AVAILABLE_KERNELS_FIELD_NUMBER: _ClassVar[int]
    KERNEL_FIELD_NUMBER: _ClassVar[int]
    LIMITS_FIELD_NUMBER: _ClassVar[int]
    LOCAL_CALLS_FIELD_NUMBER: _ClassVar[int]
    MEMORY_FIELD_NUMBER: _ClassVar[int]
    MODEL_BYTES_FIELD_NUMBER: _ClassVar[int]
    QUEUE_FIELD_NUMBER: _ClassVar[int]
    SESSIONS_FIELD_NUMBER: _ClassVar[int]
    SETTINGS_FIELD_NUMBER: _ClassVar[int]
    SHARED_MEMORY_FIELD_NUMBER: _ClassVar[int]
    STALLED_CALLS_FIELD_NUMBER: _ClassVar[int]
    STARTED_AT_FIELD_NUMBER: _ClassVar[int]
    THREADS_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    available_kernels: _containers.RepeatedScalarFieldContainer[str]
    kernel: str
    limits: Limits
    local_calls: bool
    memory: MemoryUse
    model_bytes: int
    queue: QueueUse
    sessions: SessionUse
    settings: _containers.RepeatedCompositeFieldContainer[Setting]
    shared_memory: MemoryUse
    stalled_calls: StalledCalls
    started_at: _timestamp_pb2.Timestamp
    threads: int
    version: str
    def __init__(self, version: _Optional[str] = ..., kernel: _Optional[str] = ..., available_kernels: _Optional[_Iterable[str]] = ..., threads: _Optional[int] = ..., started_at: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping]] = ..., limits: _Optional[_Union[Limits, _Mapping]] = ..., settings: _Optional[_Iterable[_Union[Setting, _Mapping]]] = ..., local_calls: bool = ..., memory: _Optional[_Union[MemoryUse, _Mapping]] = ..., shared_memory: _Optional[_Union[MemoryUse, _Mapping]] = ..., stalled_calls: _Optional[_Union[StalledCalls, _Mapping]] = ..., model_bytes: _Optional[int] = ..., queue: _Optional[_Union[QueueUse, _Mapping]] = ..., sessions: _Optional[_Union[SessionUse, _Mapping]] = ...) -> None: ...

class Limits(_message.Message):
    __slots__ = ["max_bias_cells", "max_connection_streams", "max_connections", "max_dim", "max_head_dim", "max_header_bytes", "max_inflight_bytes", "max_model_bytes", "max_model_file_bytes", "max_models", "max_page_size", "max_peer_connections", "max_reads", "max_request_bytes", "max_result_bytes", "max_shared_bytes", "max_table_values", "max_total_model_bytes"]
    MAX_BIAS_CELLS_FIELD_NUMBER: _ClassVar[int]
    MAX_CONNECTIONS_FIELD_NUMBER: _ClassVar[int]
    MAX_CONNECTION_STREAMS_FIELD_NUMBER: _ClassVar[int]
    MAX_DIM_FIELD_NUMBER: _ClassVar[int]
    MAX_HEADER_BYTES_FIELD_NUMBER: _ClassVar[int]
    MAX_HEAD_DIM_FIELD_NUMBER: _ClassVar[int]
    MAX_INFLIGHT_BYTES_FIELD_NUMBER: _ClassVar[int]
    MAX_MODELS_FIELD_NUMBER: _ClassVar[int]
    MAX_MODEL_BYTES_FIELD_NUMBER: _ClassVar[int]
    MAX_MODEL_FILE_BYTES_FIELD_NUMBER: _ClassVar[int]
    MAX_PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    MAX_PEER_CONNECTIONS_FIELD_NUMBER: _ClassVar[int]
    MAX_READS_FIELD_NUMBER: _ClassVar[int]
    MAX_REQUEST_BYTES_FIELD_NUMBER: _ClassVar[int]
    MAX_RESULT_BYTES_FIELD_NUMBER: _ClassVar[int]
    MAX_SHARED_BYTES_FIELD_NUMBER: _ClassVar[int]
    MAX_TABLE_VALUES_FIELD_NUMBER: _ClassVar[int]
    MAX_TOTAL_MODEL_BYTES_FIELD_NUMBER: _ClassVar[int]
    max_bias_cells: int
    max_connection_streams: int
    max_connections: int
    max_dim: int
    max_head_dim: int
    max_header_bytes: int
    max_inflight_bytes: int
    max_model_bytes: int
    max_model_file_bytes: int
    max_models: int
    max_page_size: int
    max_peer_connections: int
    max_reads: int
    max_request_bytes: int
    max_result_bytes: int
    max_shared_bytes: int
    max_table_values: int
    max_total_model_bytes: int
    def __init__(self, max_request_bytes: _Optional[int] = ..., max_result_bytes: _Optional[int] = ..., max_dim: _Optional[int] = ..., max_head_dim: _Optional[int] = ..., max_models: _Optional[int] = ..., max_table_values: _Optional[int] = ..., max_bias_cells: _Optional[int] = ..., max_model_file_bytes: _Optional[int] = ..., max_page_size: _Optional[int] = ..., max_inflight_bytes: _Optional[int] = ..., max_header_bytes: _Optional[int] = ..., max_shared_bytes: _Optional[int] = ..., max_model_bytes: _Optional[int] = ..., max_total_model_bytes: _Optional[int] = ..., max_connections: _Optional[int] = ..., max_peer_connections: _Optional[int] = ..., max_connection_streams: _Optional[int] = ..., max_reads: _Optional[int] = ...) -> None: ...

class MemoryUse(_message.Message):
    __slots__ = ["free_bytes", "largest_peer_bytes", "max_peer_bytes", "peak_bytes", "peers", "refused_as_never_fitting", "refused_by_share", "refused_by_total", "total_bytes", "used_bytes"]
    FREE_BYTES_FIELD_NUMBER: _ClassVar[int]
    LARGEST_PEER_BYTES_FIELD_NUMBER: _ClassVar[int]
    MAX_PEER_BYTES_FIELD_NUMBER: _ClassVar[int]
    PEAK_BYTES_FIELD_NUMBER: _ClassVar[int]
    PEERS_FIELD_NUMBER: _ClassVar[int]
    REFUSED_AS_NEVER_FITTING_FIELD_NUMBER: _ClassVar[int]
    REFUSED_BY_SHARE_FIELD_NUMBER: _ClassVar[int]
    REFUSED_BY_TOTAL_FIELD_NUMBER: _ClassVar[int]
    TOTAL_BYTES_FIELD_NUMBER: _ClassVar[int]
    USED_BYTES_FIELD_NUMBER: _ClassVar[int]
    free_bytes: int
    largest_peer_bytes: int
    max_peer_bytes: int
    peak_bytes: int
    peers: int
    refused_as_never_fitting: int
    refused_by_share: int
    refused_by_total: int
    total_bytes: int
    used_bytes: int
    def __init__(self, total_bytes: _Optional[int] = ..., used_bytes: _Optional[int] = ..., peak_bytes: _Optional[int] = ..., free_bytes: _Optional[int] = ..., peers: _Optional[int] = ..., largest_peer_bytes: _Optional[int] = ..., refused_by_total: _Optional[int] = ..., refused_by_share: _Optional[int] = ..., refused_as_never_fitting: _Optional[int] = ..., max_peer_bytes: _Optional[int] = ...) -> None: ...

class QueueUse(_message.Message):
    __slots__ = ["expired", "refused", "waiting"]
    EXPIRED_FIELD_NUMBER: _ClassVar[int]
    REFUSED_FIELD_NUMBER: _ClassVar[int]
    WAITING_FIELD_NUMBER: _ClassVar[int]
    expired: int
    refused: int
    waiting: int
    def __init__(self, waiting: _Optional[int] = ..., refused: _Optional[int] = ..., expired: _Optional[int] = ...) -> None: ...

class SessionUse(_message.Message):
    __slots__ = ["evicted", "max_peer_sessions", "max_sessions", "open"]
    EVICTED_FIELD_NUMBER: _ClassVar[int]
    MAX_PEER_SESSIONS_FIELD_NUMBER: _ClassVar[int]
    MAX_SESSIONS_FIELD_NUMBER: _ClassVar[int]
    OPEN_FIELD_NUMBER: _ClassVar[int]
    evicted: int
    max_peer_sessions: int
    max_sessions: int
    open: int
    def __init__(self, open: _Optional[int] = ..., evicted: _Optional[int] = ..., max_sessions: _Optional[int] = ..., max_peer_sessions: _Optional[int] = ...) -> None: ...

class Setting(_message.Message):
    __slots__ = ["detail", "name", "state"]
    DETAIL_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    detail: str
    name: str
    state: SettingState
    def __init__(self, name: _Optional[str] = ..., state: _Optional[_Union[SettingState, str]] = ..., detail: _Optional[str] = ...) -> None: ...

class StalledCalls(_message.Message):
    __slots__ = ["reads", "writes"]
    READS_FIELD_NUMBER: _ClassVar[int]
    WRITES_FIELD_NUMBER: _ClassVar[int]
    reads: int
    writes: int
    def __init__(self, writes: _Optional[int] = ..., reads: _Optional[int] = ...) -> None: ...

class SettingState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = []
