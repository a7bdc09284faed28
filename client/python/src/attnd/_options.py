"""The checked settings of a client, and the gRPC channel options that follow from them."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Any, Callable, List, Optional, Tuple, Union

import grpc

from attnd import _target
from attnd._deadline import checked_timeout
from attnd._operation import Metadata
from attnd._retry import Retry
from attnd._version import VERSION
from attnd.errors import InvalidArgument

_INT_MAX = 2**31 - 1
# The same as the server's: docs/performance.md, "Settings of the channel".
_READ_BYTES = 256 << 10

_METADATA = "pairs of a lower-case key and printable ASCII text, or bytes if the key ends in -bin"

Token = Union[str, Callable[[], str]]


@dataclass(frozen=True)
class Options:
    """A client's settings. `target` is the caller's, or from the environment, or the default."""

    target: str
    credentials: Optional[grpc.ChannelCredentials]
    token: Optional[Token]
    timeout: float
    retry: Retry
    shared_memory: bool
    local_calls: bool
    load_balancing: str
    channels: int
    keepalive_time: float
    keepalive_timeout: float
    user_agent: str

    def authorization(self) -> Metadata:
        """The metadata with the token. Raises what the caller's token function raises."""
        if self.token is None:
            return ()
        token = self.token() if callable(self.token) else self.token
        if not _is_printable(token):
            raise InvalidArgument.of("token", "printable ASCII text", "something else")  # the token is secret
        return (("authorization", f"Bearer {token}"),)


def checked(
    target: Optional[str],
    *,
    credentials: Optional[grpc.ChannelCredentials],
    token: Optional[Token],
    timeout: float,
    retry: Optional[Retry],
    shared_memory: bool,
    local_calls: bool,
    load_balancing: str,
    channels: int,
    keepalive_time: float,
    keepalive_timeout: float,
    user_agent: Optional[str],
) -> Options:
    """Checks the arguments of a client. Raises InvalidArgument."""
    name = _target.resolve(target)
    if credentials is not None and not isinstance(credentials, grpc.ChannelCredentials):
        raise InvalidArgument.of("credentials", "grpc.ChannelCredentials", f"a {type(credentials).__qualname__}")
    if token is not None and not isinstance(token, str) and not callable(token):
        raise InvalidArgument.of("token", "a string or a function that returns one", f"a {type(token).__qualname__}")
    if token is not None and credentials is None and not _target.is_local(name):
        raise InvalidArgument.of("token", "credentials beside it, so that it travels encrypted", f"none, for {name}")
    if retry is not None and not isinstance(retry, Retry):
        raise InvalidArgument.of("retry", "an attnd.Retry", repr(retry)[:80])
    if load_balancing not in ("pick_first", "round_robin"):
        raise InvalidArgument.of("load_balancing", "pick_first or round_robin", repr(load_balancing)[:80])
    if not isinstance(channels, int) or not 1 <= channels <= 64:
        raise InvalidArgument.of("channels", "1 to 64", repr(channels)[:80])
    for field, value in (("keepalive_time", keepalive_time), ("keepalive_timeout", keepalive_timeout)):
        if not isinstance(value, (int, float)) or not value >= 0.001:
            raise InvalidArgument.of(field, "at least 0.001 s", repr(value)[:80])
    if user_agent is not None and not _is_printable(user_agent):
        raise InvalidArgument.of("user_agent", "printable ASCII text", repr(user_agent)[:80])
    return Options(
        target=name,
        credentials=credentials,
        token=token,
        timeout=checked_timeout(timeout),
        retry=retry if retry is not None else Retry(enabled=False),
        shared_memory=bool(shared_memory),
        local_calls=bool(local_calls),
        load_balancing=load_balancing,
        channels=channels,
        keepalive_time=keepalive_time,
        keepalive_timeout=keepalive_timeout,
        user_agent=f"{user_agent} attnd-python/{VERSION}" if user_agent else f"attnd-python/{VERSION}",
    )


def channel_options(options: Options) -> List[Tuple[str, Any]]:
    """The gRPC channel options, the same as the C++ client's (client/src/connection.cc)."""
    result: List[Tuple[str, Any]] = [
        ("grpc.max_receive_message_length", -1),
        ("grpc.max_send_message_length", -1),
        ("grpc.lb_policy_name", options.load_balancing),
        # Look up names and reconnect soon after a server restarts: with gRPC's defaults (30 s between look-ups of a
        # name, 1 to 120 s between attempts) a client would miss a rolling update.
        ("grpc.dns_min_time_between_resolutions_ms", 1000),
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.max_reconnect_backoff_ms", 1000),
        # The limit of one attempt to connect, handshakes included (gRPC: 20 s). An unresponsive address delays the
        # attempt at the next.
        ("grpc.min_reconnect_backoff_ms", 2000),
        # The client repeats calls itself; gRPC only repeats calls that were never sent.
        ("grpc.service_config_disable_resolution", 1),
        ("grpc.keepalive_time_ms", _milliseconds(options.keepalive_time)),
        ("grpc.keepalive_timeout_ms", _milliseconds(options.keepalive_timeout)),
        # Ping for as long as calls wait: by default gRPC stops after two pings without data.
        ("grpc.http2.max_pings_without_data", 0),
        ("grpc.experimental.tcp_read_chunk_size", _READ_BYTES),
        ("grpc.experimental.tcp_min_read_chunk_size", _READ_BYTES),
        # grpcio sets the primary user agent itself, after these.
        ("grpc.secondary_user_agent", options.user_agent),
    ]
    if options.channels > 1:
        result.append(("grpc.use_local_subchannel_pool", 1))  # so that each channel has its own connections
    if _target.is_local(options.target):
        result.append(("grpc.enable_http_proxy", 0))  # an http_proxy in the environment is meant for other machines
    return result


def checked_metadata(metadata: Any) -> Metadata:
    """Checks a caller's metadata, a mapping or pairs, and returns it as pairs."""
    if metadata is None:
        return ()
    try:
        pairs: Tuple[Any, ...] = tuple(metadata.items() if hasattr(metadata, "items") else metadata)
    except TypeError:
        raise InvalidArgument.of("metadata", _METADATA, repr(metadata)[:80]) from None
    for pair in pairs:
        if not (isinstance(pair, tuple) and len(pair) == 2 and _is_metadata(*pair)):
            raise InvalidArgument.of("metadata", _METADATA, repr(pair)[:80])
    return pairs


def _is_metadata(key: Any, value: Any) -> bool:
    """Whether gRPC accepts this pair. Checked here because gRPC's own error for a bad pair is less clear."""
    if not isinstance(key, str) or not re.fullmatch("[0-9a-z_.-]+", key) or key.startswith("grpc-"):
        return False
    return isinstance(value, bytes) if key.endswith("-bin") else value == "" or _is_printable(value)


def _is_printable(value: Any) -> bool:
    return isinstance(value, str) and bool(value) and value.isascii() and value.isprintable()


def _milliseconds(seconds: float) -> int:
    return _INT_MAX if seconds == math.inf else min(int(seconds * 1000), _INT_MAX)
