"""A client's gRPC channels, of grpcio's blocking or asyncio API, and their methods."""

from __future__ import annotations

import itertools
from typing import Any, Dict, List

from attnd._options import Options, channel_options
from attnd._target import for_grpc


class Channels:
    """Calls use the channels in turn. As thread-safe as the channels are."""

    def __init__(self, api: Any, options: Options) -> None:
        """`api` is the module grpc or grpc.aio."""
        target, settings = for_grpc(options.target), channel_options(options)
        self._channels: List[Any] = []
        for _ in range(options.channels):
            if options.credentials is None:
                self._channels.append(api.insecure_channel(target, settings))
            else:
                self._channels.append(api.secure_channel(target, options.credentials, settings))
        self._methods: List[Dict[str, Any]] = [{} for _ in self._channels]
        self._turn = itertools.count()

    @property
    def first(self) -> Any:
        return self._channels[0]

    @property
    def all(self) -> List[Any]:
        return self._channels

    def unary(self, method: str) -> Any:
        """The method on the next channel, from bytes to bytes."""
        index = next(self._turn) % len(self._channels)
        found = self._methods[index].get(method)
        if found is None:
            found = self._methods[index][method] = self._channels[index].unary_unary(method, None, None)
        return found

    def stream(self, method: str) -> Any:
        """As `unary`, for a method with streams of messages."""
        return self._channels[next(self._turn) % len(self._channels)].stream_stream(method, None, None)
