"""The connection that attached models use."""

from __future__ import annotations

import os
from typing import Any, Optional

from attnd import Client, LocalServer, local_server
from attnd.errors import InvalidArgument


class Connection:
    """A client, and the private server if one was started.

    Attributes:
        client: the client.
        origin: where the server comes from, in words.
        target: the server's gRPC name.
    """

    def __init__(self, target: Any, timeout: float) -> None:
        self._server: Optional[LocalServer] = None
        self._owns_client = True
        if target is None and not os.environ.get("ATTND_SERVER"):
            self._server = local_server().start()
            target = self._server.target
            self.origin = "a private one, which ends with the handle"
        elif target is None:
            self.origin = "ATTND_SERVER"
        else:
            self.origin = "given"
        if isinstance(target, Client):
            self.client: Any = target
            self._owns_client = False
        elif isinstance(target, LocalServer):
            self.client = target.client(timeout=timeout)
        elif target is None or isinstance(target, str):
            self.client = Client(target, timeout=timeout)
        else:
            expected = "None, a server's name, an attnd.Client or an attnd.LocalServer"
            raise InvalidArgument.of("target", expected, f"a {type(target).__qualname__}")
        self.target: str = self.client.target

    def close(self) -> None:
        """Closes the client and stops the server, if this object made them."""
        if self._owns_client:
            self.client.close()
        if self._server is not None:
            self._server.close()
