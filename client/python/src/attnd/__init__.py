"""The Python client of attnd, a server that computes attention with learned relative-position bias.

Example:
    >>> import attnd, numpy as np
    >>> q, k, v = (np.ones((1, 8, 16, 64), np.float32) for _ in range(3))
    >>> with attnd.Client() as client:
    ...     client.attend(q, k, v, "t5-tiny").shape
    (1, 8, 16, 64)
"""

from __future__ import annotations

from attnd._async_client import AsyncClient
from attnd._client import Client
from attnd._comparison import BiasComparison, ComparedBias, compare_bias
from attnd._request import ComputeReply, ComputeRequest
from attnd._retry import Retry
from attnd._server import LocalServer, local_server
from attnd._session import CrossLayer, SelfLayer
from attnd._sessions import AsyncSession, Session
from attnd._step_message import StepReply
from attnd._version import VERSION as __version__
from attnd.errors import (
    Aborted,
    AlreadyExists,
    Cancelled,
    DataLoss,
    DeadlineExceeded,
    Error,
    FailedPrecondition,
    Internal,
    InvalidArgument,
    NotFound,
    OutOfRange,
    PermissionDenied,
    ResourceExhausted,
    Unauthenticated,
    Unavailable,
    Unimplemented,
    Unknown,
)
from attnd.models import (
    AlibiSlopes,
    BiasWindow,
    FailedModel,
    MemoryUse,
    Model,
    PerOffset,
    QueueUse,
    ServerInfo,
    ServingStatus,
    SessionInfo,
    SessionUse,
    Setting,
    StalledCalls,
    Svg,
    T5Buckets,
    Table,
)

__all__ = [
    "Aborted",
    "AlibiSlopes",
    "AlreadyExists",
    "AsyncClient",
    "AsyncSession",
    "BiasComparison",
    "BiasWindow",
    "Cancelled",
    "Client",
    "ComparedBias",
    "ComputeReply",
    "ComputeRequest",
    "CrossLayer",
    "DataLoss",
    "DeadlineExceeded",
    "Error",
    "FailedModel",
    "FailedPrecondition",
    "Internal",
    "InvalidArgument",
    "LocalServer",
    "MemoryUse",
    "Model",
    "NotFound",
    "OutOfRange",
    "PerOffset",
    "PermissionDenied",
    "QueueUse",
    "ResourceExhausted",
    "Retry",
    "SelfLayer",
    "ServerInfo",
    "ServingStatus",
    "Session",
    "SessionInfo",
    "SessionUse",
    "Setting",
    "StalledCalls",
    "StepReply",
    "Svg",
    "T5Buckets",
    "Table",
    "Unauthenticated",
    "Unavailable",
    "Unimplemented",
    "Unknown",
    "__version__",
    "compare_bias",
    "local_server",
]
