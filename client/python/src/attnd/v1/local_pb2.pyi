from attnd.v1 import attention_pb2 as _attention_pb2
from attnd.v1 import session_pb2 as _session_pb2
from attnd.v1 import types_pb2 as _types_pb2
from google.protobuf import duration_pb2 as _duration_pb2
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Mapping as _Mapping, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class LocalAnswer(_message.Message):
    __slots__ = ["code", "detail", "id", "message", "result"]
    CODE_FIELD_NUMBER: _ClassVar[int]
    DETAIL_FIELD_NUMBER: _ClassVar[int]
    ID_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    RESULT_FIELD_NUMBER: _ClassVar[int]
    code: int
    detail: _types_pb2.ErrorDetail
    id: int
    message: str
    result: _attention_pb2.ComputeAttentionResponse
    def __init__(self, id: _Optional[int] = ..., code: _Optional[int] = ..., message: _Optional[str] = ..., detail: _Optional[_Union[_types_pb2.ErrorDetail, _Mapping]] = ..., result: _Optional[_Union[_attention_pb2.ComputeAttentionResponse, _Mapping]] = ...) -> None: ...

class LocalCall(_message.Message):
    __slots__ = ["id", "request", "timeout"]
    ID_FIELD_NUMBER: _ClassVar[int]
    REQUEST_FIELD_NUMBER: _ClassVar[int]
    TIMEOUT_FIELD_NUMBER: _ClassVar[int]
    id: int
    request: _attention_pb2.ComputeAttentionRequest
    timeout: _duration_pb2.Duration
    def __init__(self, id: _Optional[int] = ..., timeout: _Optional[_Union[_duration_pb2.Duration, _Mapping]] = ..., request: _Optional[_Union[_attention_pb2.ComputeAttentionRequest, _Mapping]] = ...) -> None: ...

class LocalCancel(_message.Message):
    __slots__ = ["id"]
    ID_FIELD_NUMBER: _ClassVar[int]
    id: int
    def __init__(self, id: _Optional[int] = ...) -> None: ...

class LocalHello(_message.Message):
    __slots__ = ["user_agent", "version"]
    USER_AGENT_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    user_agent: str
    version: int
    def __init__(self, version: _Optional[int] = ..., user_agent: _Optional[str] = ...) -> None: ...

class LocalReply(_message.Message):
    __slots__ = ["answer", "session", "session_end", "welcome"]
    ANSWER_FIELD_NUMBER: _ClassVar[int]
    SESSION_END_FIELD_NUMBER: _ClassVar[int]
    SESSION_FIELD_NUMBER: _ClassVar[int]
    WELCOME_FIELD_NUMBER: _ClassVar[int]
    answer: LocalAnswer
    session: _session_pb2.SessionReply
    session_end: LocalSessionEnd
    welcome: LocalWelcome
    def __init__(self, welcome: _Optional[_Union[LocalWelcome, _Mapping]] = ..., answer: _Optional[_Union[LocalAnswer, _Mapping]] = ..., session: _Optional[_Union[_session_pb2.SessionReply, _Mapping]] = ..., session_end: _Optional[_Union[LocalSessionEnd, _Mapping]] = ...) -> None: ...

class LocalRequest(_message.Message):
    __slots__ = ["call", "cancel", "hello", "session", "session_close"]
    CALL_FIELD_NUMBER: _ClassVar[int]
    CANCEL_FIELD_NUMBER: _ClassVar[int]
    HELLO_FIELD_NUMBER: _ClassVar[int]
    SESSION_CLOSE_FIELD_NUMBER: _ClassVar[int]
    SESSION_FIELD_NUMBER: _ClassVar[int]
    call: LocalCall
    cancel: LocalCancel
    hello: LocalHello
    session: _session_pb2.SessionRequest
    session_close: LocalSessionClose
    def __init__(self, hello: _Optional[_Union[LocalHello, _Mapping]] = ..., call: _Optional[_Union[LocalCall, _Mapping]] = ..., cancel: _Optional[_Union[LocalCancel, _Mapping]] = ..., session: _Optional[_Union[_session_pb2.SessionRequest, _Mapping]] = ..., session_close: _Optional[_Union[LocalSessionClose, _Mapping]] = ...) -> None: ...

class LocalSessionClose(_message.Message):
    __slots__ = []
    def __init__(self) -> None: ...

class LocalSessionEnd(_message.Message):
    __slots__ = ["code", "detail", "message", "retry_delay"]
    CODE_FIELD_NUMBER: _ClassVar[int]
    DETAIL_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    RETRY_DELAY_FIELD_NUMBER: _ClassVar[int]
    code: int
    detail: _types_pb2.ErrorDetail
    message: str
    retry_delay: _duration_pb2.Duration
    def __init__(self, code: _Optional[int] = ..., message: _Optional[str] = ..., detail: _Optional[_Union[_types_pb2.ErrorDetail, _Mapping]] = ..., retry_delay: _Optional[_Union[_duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class LocalWelcome(_message.Message):
    __slots__ = ["code", "max_calls", "max_message_bytes", "message", "sessions", "version"]
    CODE_FIELD_NUMBER: _ClassVar[int]
    MAX_CALLS_FIELD_NUMBER: _ClassVar[int]
    MAX_MESSAGE_BYTES_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    SESSIONS_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    code: int
    max_calls: int
    max_message_bytes: int
    message: str
    sessions: bool
    version: int
    def __init__(self, code: _Optional[int] = ..., message: _Optional[str] = ..., version: _Optional[int] = ..., max_message_bytes: _Optional[int] = ..., max_calls: _Optional[int] = ..., sessions: bool = ...) -> None: ...
