from google.protobuf import duration_pb2 as _duration_pb2
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Mapping as _Mapping, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor
DTYPE_BF16: Dtype
DTYPE_FP16: Dtype
DTYPE_FP32: Dtype
DTYPE_UNSPECIFIED: Dtype
MASK_CAUSAL: Mask
MASK_NONE: Mask
MASK_UNSPECIFIED: Mask

class ErrorDetail(_message.Message):
    __slots__ = ["expected", "field", "got", "retry_delay"]
    EXPECTED_FIELD_NUMBER: _ClassVar[int]
    FIELD_FIELD_NUMBER: _ClassVar[int]
    GOT_FIELD_NUMBER: _ClassVar[int]
    RETRY_DELAY_FIELD_NUMBER: _ClassVar[int]
    expected: str
    field: str
    got: str
    retry_delay: _duration_pb2.Duration
    def __init__(self, field: _Optional[str] = ..., expected: _Optional[str] = ..., got: _Optional[str] = ..., retry_delay: _Optional[_Union[_duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class Dtype(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = []

class Mask(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = []
