from attnd.v1 import types_pb2 as _types_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Iterable as _Iterable, Mapping as _Mapping, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class AlibiSlopes(_message.Message):
    __slots__ = ["slopes"]
    SLOPES_FIELD_NUMBER: _ClassVar[int]
    slopes: _containers.RepeatedScalarFieldContainer[float]
    def __init__(self, slopes: _Optional[_Iterable[float]] = ...) -> None: ...

class BucketRange(_message.Message):
    __slots__ = ["bucket", "max_offset", "min_offset"]
    BUCKET_FIELD_NUMBER: _ClassVar[int]
    MAX_OFFSET_FIELD_NUMBER: _ClassVar[int]
    MIN_OFFSET_FIELD_NUMBER: _ClassVar[int]
    bucket: int
    max_offset: int
    min_offset: int
    def __init__(self, bucket: _Optional[int] = ..., min_offset: _Optional[int] = ..., max_offset: _Optional[int] = ...) -> None: ...

class FailedModel(_message.Message):
    __slots__ = ["name", "path", "reason"]
    NAME_FIELD_NUMBER: _ClassVar[int]
    PATH_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    name: str
    path: str
    reason: str
    def __init__(self, name: _Optional[str] = ..., path: _Optional[str] = ..., reason: _Optional[str] = ...) -> None: ...

class GetBiasRequest(_message.Message):
    __slots__ = ["heads", "key_count", "key_start", "mask", "model", "query_count", "query_start", "table", "version"]
    HEADS_FIELD_NUMBER: _ClassVar[int]
    KEY_COUNT_FIELD_NUMBER: _ClassVar[int]
    KEY_START_FIELD_NUMBER: _ClassVar[int]
    MASK_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    QUERY_COUNT_FIELD_NUMBER: _ClassVar[int]
    QUERY_START_FIELD_NUMBER: _ClassVar[int]
    TABLE_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    heads: _containers.RepeatedScalarFieldContainer[int]
    key_count: int
    key_start: int
    mask: _types_pb2.Mask
    model: str
    query_count: int
    query_start: int
    table: str
    version: int
    def __init__(self, model: _Optional[str] = ..., version: _Optional[int] = ..., table: _Optional[str] = ..., query_start: _Optional[int] = ..., query_count: _Optional[int] = ..., key_start: _Optional[int] = ..., key_count: _Optional[int] = ..., mask: _Optional[_Union[_types_pb2.Mask, str]] = ..., heads: _Optional[_Iterable[int]] = ...) -> None: ...

class GetBiasResponse(_message.Message):
    __slots__ = ["bucket_ranges", "buckets", "content_hash", "heads", "mask", "offsets", "table", "values", "version"]
    BUCKETS_FIELD_NUMBER: _ClassVar[int]
    BUCKET_RANGES_FIELD_NUMBER: _ClassVar[int]
    CONTENT_HASH_FIELD_NUMBER: _ClassVar[int]
    HEADS_FIELD_NUMBER: _ClassVar[int]
    MASK_FIELD_NUMBER: _ClassVar[int]
    OFFSETS_FIELD_NUMBER: _ClassVar[int]
    TABLE_FIELD_NUMBER: _ClassVar[int]
    VALUES_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    bucket_ranges: _containers.RepeatedCompositeFieldContainer[BucketRange]
    buckets: _containers.RepeatedScalarFieldContainer[int]
    content_hash: str
    heads: _containers.RepeatedScalarFieldContainer[int]
    mask: _types_pb2.Mask
    offsets: _containers.RepeatedScalarFieldContainer[int]
    table: str
    values: _containers.RepeatedScalarFieldContainer[float]
    version: int
    def __init__(self, version: _Optional[int] = ..., content_hash: _Optional[str] = ..., table: _Optional[str] = ..., mask: _Optional[_Union[_types_pb2.Mask, str]] = ..., offsets: _Optional[_Iterable[int]] = ..., buckets: _Optional[_Iterable[int]] = ..., heads: _Optional[_Iterable[int]] = ..., values: _Optional[_Iterable[float]] = ..., bucket_ranges: _Optional[_Iterable[_Union[BucketRange, _Mapping]]] = ...) -> None: ...

class GetModelRequest(_message.Message):
    __slots__ = ["include_values", "name", "version"]
    INCLUDE_VALUES_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    include_values: bool
    name: str
    version: int
    def __init__(self, name: _Optional[str] = ..., version: _Optional[int] = ..., include_values: bool = ...) -> None: ...

class GetModelResponse(_message.Message):
    __slots__ = ["model"]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    model: Model
    def __init__(self, model: _Optional[_Union[Model, _Mapping]] = ...) -> None: ...

class ListModelsRequest(_message.Message):
    __slots__ = ["page_size", "page_token"]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    page_size: int
    page_token: str
    def __init__(self, page_size: _Optional[int] = ..., page_token: _Optional[str] = ...) -> None: ...

class ListModelsResponse(_message.Message):
    __slots__ = ["failed_model_count", "failed_models", "models", "next_page_token"]
    FAILED_MODELS_FIELD_NUMBER: _ClassVar[int]
    FAILED_MODEL_COUNT_FIELD_NUMBER: _ClassVar[int]
    MODELS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    failed_model_count: int
    failed_models: _containers.RepeatedCompositeFieldContainer[FailedModel]
    models: _containers.RepeatedCompositeFieldContainer[Model]
    next_page_token: str
    def __init__(self, models: _Optional[_Iterable[_Union[Model, _Mapping]]] = ..., next_page_token: _Optional[str] = ..., failed_models: _Optional[_Iterable[_Union[FailedModel, _Mapping]]] = ..., failed_model_count: _Optional[int] = ...) -> None: ...

class LoadModelRequest(_message.Message):
    __slots__ = ["name", "path"]
    NAME_FIELD_NUMBER: _ClassVar[int]
    PATH_FIELD_NUMBER: _ClassVar[int]
    name: str
    path: str
    def __init__(self, name: _Optional[str] = ..., path: _Optional[str] = ...) -> None: ...

class LoadModelResponse(_message.Message):
    __slots__ = ["model"]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    model: Model
    def __init__(self, model: _Optional[_Union[Model, _Mapping]] = ...) -> None: ...

class Model(_message.Message):
    __slots__ = ["architecture", "content_hash", "format", "heads", "loaded_at", "name", "source", "tables", "version"]
    ARCHITECTURE_FIELD_NUMBER: _ClassVar[int]
    CONTENT_HASH_FIELD_NUMBER: _ClassVar[int]
    FORMAT_FIELD_NUMBER: _ClassVar[int]
    HEADS_FIELD_NUMBER: _ClassVar[int]
    LOADED_AT_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    TABLES_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    architecture: str
    content_hash: str
    format: str
    heads: int
    loaded_at: _timestamp_pb2.Timestamp
    name: str
    source: str
    tables: _containers.RepeatedCompositeFieldContainer[Table]
    version: int
    def __init__(self, name: _Optional[str] = ..., version: _Optional[int] = ..., heads: _Optional[int] = ..., tables: _Optional[_Iterable[_Union[Table, _Mapping]]] = ..., source: _Optional[str] = ..., format: _Optional[str] = ..., architecture: _Optional[str] = ..., content_hash: _Optional[str] = ..., loaded_at: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class PerOffset(_message.Message):
    __slots__ = ["min_offset", "values"]
    MIN_OFFSET_FIELD_NUMBER: _ClassVar[int]
    VALUES_FIELD_NUMBER: _ClassVar[int]
    min_offset: int
    values: _containers.RepeatedScalarFieldContainer[float]
    def __init__(self, min_offset: _Optional[int] = ..., values: _Optional[_Iterable[float]] = ...) -> None: ...

class ReloadModelRequest(_message.Message):
    __slots__ = ["name"]
    NAME_FIELD_NUMBER: _ClassVar[int]
    name: str
    def __init__(self, name: _Optional[str] = ...) -> None: ...

class ReloadModelResponse(_message.Message):
    __slots__ = ["model"]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    model: Model
    def __init__(self, model: _Optional[_Union[Model, _Mapping]] = ...) -> None: ...

class T5Buckets(_message.Message):
    __slots__ = ["max_distance", "num_buckets", "values"]
    MAX_DISTANCE_FIELD_NUMBER: _ClassVar[int]
    NUM_BUCKETS_FIELD_NUMBER: _ClassVar[int]
    VALUES_FIELD_NUMBER: _ClassVar[int]
    max_distance: int
    num_buckets: int
    values: _containers.RepeatedScalarFieldContainer[float]
    def __init__(self, num_buckets: _Optional[int] = ..., max_distance: _Optional[int] = ..., values: _Optional[_Iterable[float]] = ...) -> None: ...

class Table(_message.Message):
    __slots__ = ["alibi", "bidirectional", "heads", "name", "per_offset", "t5"]
    ALIBI_FIELD_NUMBER: _ClassVar[int]
    BIDIRECTIONAL_FIELD_NUMBER: _ClassVar[int]
    HEADS_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    PER_OFFSET_FIELD_NUMBER: _ClassVar[int]
    T5_FIELD_NUMBER: _ClassVar[int]
    alibi: AlibiSlopes
    bidirectional: bool
    heads: int
    name: str
    per_offset: PerOffset
    t5: T5Buckets
    def __init__(self, name: _Optional[str] = ..., heads: _Optional[int] = ..., bidirectional: bool = ..., t5: _Optional[_Union[T5Buckets, _Mapping]] = ..., alibi: _Optional[_Union[AlibiSlopes, _Mapping]] = ..., per_offset: _Optional[_Union[PerOffset, _Mapping]] = ...) -> None: ...

class UnloadModelRequest(_message.Message):
    __slots__ = ["name"]
    NAME_FIELD_NUMBER: _ClassVar[int]
    name: str
    def __init__(self, name: _Optional[str] = ...) -> None: ...

class UnloadModelResponse(_message.Message):
    __slots__ = []
    def __init__(self) -> None: ...

class UploadTableRequest(_message.Message):
    __slots__ = ["model", "replace", "table"]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    REPLACE_FIELD_NUMBER: _ClassVar[int]
    TABLE_FIELD_NUMBER: _ClassVar[int]
    model: str
    replace: bool
    table: Table
    def __init__(self, model: _Optional[str] = ..., table: _Optional[_Union[Table, _Mapping]] = ..., replace: bool = ...) -> None: ...

class UploadTableResponse(_message.Message):
    __slots__ = ["model"]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    model: Model
    def __init__(self, model: _Optional[_Union[Model, _Mapping]] = ...) -> None: ...
