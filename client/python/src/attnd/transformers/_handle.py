"""What attach() gives: what was patched, and the way back."""

from __future__ import annotations

import contextlib
import threading
import weakref
from types import TracebackType
from typing import Any, Dict, Iterator, List, Optional, Type

import torch

from attnd import ComputeRequest
from attnd.errors import Aborted, Error, InvalidArgument, NotFound
from attnd.transformers._bias import Bias
from attnd.transformers._families import Encoder, local_parts
from attnd.transformers._memory import SharedTensors
from attnd.transformers._projection import projections
from attnd.transformers._refused import Refused
from attnd.transformers._server import Connection
from attnd.transformers._tables import Content, LayerTable, Place, ServerTables
from attnd.transformers._undo import NAME, Implementation, Mark, Method

# How often a call looks for its table again: a server that restarts, or models that are replaced, in a row.
_MAX_MOVES = 4
_patching = threading.Lock()


class Handle:
    """A model whose encoders' attention is computed by a server. A context manager, which detaches.

    Attributes:
        min_length: sequences of fewer tokens than this are computed locally. May be set.

    Example:
        >>> handle = attnd.transformers.attach(model, min_length=0)
        >>> handle.layers
        3
        >>> handle.detach()
    """

    def __init__(self, model: Any, encoders: List[Encoder], connection: Connection, timeout: float) -> None:
        self.min_length = 0
        self.memory = SharedTensors(connection.client)
        self._model = weakref.ref(model)
        self._model_name = type(model).__qualname__
        self._encoders = encoders
        self._local_parts = local_parts(model)
        self._connection = connection
        self._timeout = timeout
        self._tables = ServerTables(connection.client, _described(model))
        self.layer_tables: List[LayerTable] = []
        self._methods: List[Method] = []
        for encoder in encoders:
            self._add(encoder)
        self._attached = False

    # What the user sees.

    @property
    def attached(self) -> bool:
        """Whether the model is attached."""
        return self._attached

    @property
    def target(self) -> str:
        """The server."""
        return self._connection.target

    @property
    def transport(self) -> str:
        """The way that calls go now: "local", "shared_memory" or "grpc", as :attr:`attnd.Client.transport`."""
        transport: str = self._connection.client.transport
        return transport

    @property
    def layers(self) -> int:
        """Layers whose attention the server computes."""
        return sum(len(encoder.layers) for encoder in self._encoders)

    def tables(self) -> Dict[str, Place]:
        """Where the server has each layer's bias table, by the layer's path; uploads what is not there."""
        return {table.name: self._tables.place(table.content()) for table in self.layer_tables}

    def detach(self) -> None:
        """Makes the model compute its attention by itself again, and ends the connection, and the server if it is the
        handle's own. A second time does nothing."""
        if self._attached:
            self.remove()
            self._attached = False
        self.memory.close()
        self._connection.close()

    def __enter__(self) -> Handle:
        return self

    def __exit__(
        self, kind: Optional[Type[BaseException]], error: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        self.detach()

    def __repr__(self) -> str:
        state = "to" if self._attached else "detached from"
        return f"<attnd.transformers.Handle {self._model_name}: {self.layers} layers {state} {self.target!r}>"

    def __str__(self) -> str:
        """What was patched, in lines."""
        if not self._attached:
            return f"detached from {self.target}"
        lines = [f"{self._model_name}: self-attention of {self.layers} layers computed by attnd"]
        for encoder in self._encoders:
            count = len(encoder.layers)
            lines.append(f"  {encoder.name or 'the model itself'}: layers 0 to {count - 1}")
        try:
            for name, place in self.tables().items():
                how = "uploaded" if place.uploaded else "found"
                lines.append(f"  bias of {name}: {how}, table {place.table} of model {place.model}")
            transport = self.transport
        except Error as error:
            transport = f"no way now: {error}"
        lines.append(f"  server: {self.target} ({self._connection.origin}), by {transport}")
        lines.append(f"  sequences shorter than {self.min_length} tokens: local, by sdpa")
        for name in self._local_parts:
            lines.append(f"  {name}: stays local, as it was (self and cross attention)")
        return "\n".join(lines)

    # What the patches use.

    def compute(self, content: Content, query: Any, key: Any, value: Any, keys: Dict[str, Any], scale: float) -> Any:
        """One layer's attention. query, key, value: [batch, heads, tokens, head_dim]; gives [batch, tokens, heads,
        head_dim]."""
        q, k, v = query.transpose(1, 2), key.transpose(1, 2), value.transpose(1, 2)
        out = self.memory.make((*q.shape[:3], v.shape[3]), q.dtype)
        client = self._connection.client
        for _ in range(_MAX_MOVES):
            place = self._tables.place(content)
            request = ComputeRequest(
                q, k, v, place.model, place.table, layout="bshd", mask="none", scale=scale, out=out, **keys
            )
            try:
                reply = client.compute(request, timeout=self._timeout)
            except NotFound:
                pass
            except InvalidArgument:
                if not self._has_changed(place):
                    raise
            else:
                if reply.content_hash == place.content_hash:
                    return reply.output
            self._tables.forget(content, place)
        raise Aborted(f"model {place.model!r} of {self.target} was replaced {_MAX_MOVES} times in a row")

    def _has_changed(self, place: Place) -> bool:
        try:
            return bool(self._connection.client.get_model(place.model).content_hash != place.content_hash)
        except NotFound:
            return True
        except Error:
            return False

    # Patching.

    def _add(self, encoder: Encoder) -> None:
        table: Optional[LayerTable] = None
        for index, layer in enumerate(encoder.layers):
            if layer.has_relative_attention_bias:
                name = f"{encoder.name}.block.{index}".lstrip(".")
                table = LayerTable(name, layer)
                self.layer_tables.append(table)
                self._methods.append(Bias(layer, self, table))
            if table is None:
                raise Refused.of("model", "a bias table in the first layer", "none")
            self._methods += projections(layer, self)

    def put(self) -> None:
        """Patches the model."""
        with _patching:
            for encoder in self._encoders:
                for layer in encoder.layers:
                    vars(layer)[Mark.NAME] = Mark(self, encoder.takes_float_mask)
                _switch(encoder.stack.config)
                encoder.before = encoder.stack.config._attn_implementation_internal.before
            for method in self._methods:
                method.put()
        self._attached = True

    def remove(self) -> None:
        """Undoes put()."""
        with _patching:
            for method in self._methods:
                method.remove()
            for encoder in self._encoders:
                _switch_back(encoder)
                for layer in encoder.layers:
                    vars(layer).pop(Mark.NAME, None)

    @contextlib.contextmanager
    def suspended(self) -> Iterator[None]:
        """Within this the model is as it was before."""
        self.remove()
        try:
            yield
        finally:
            self.put()


def _switch(config: Any) -> None:
    """The implementation of a config, which several encoders may share."""
    now = config._attn_implementation_internal
    if not isinstance(now, Implementation):
        now = Implementation(now)
        config._attn_implementation_internal = now
    now.users += 1


def _switch_back(encoder: Encoder) -> None:
    config = encoder.stack.config
    now = config._attn_implementation_internal
    if isinstance(now, Implementation):
        now.users -= 1
        if now.users == 0:
            config._attn_implementation_internal = now.before
    elif now == NAME:  # set by its name since; another one that was set stays
        config._attn_implementation_internal = encoder.before


def handle_of(model: Any) -> Optional[Handle]:
    """The handle of an attached model; None if it is not attached."""
    if isinstance(model, torch.nn.Module):
        for module in model.modules():
            mark = vars(module).get(Mark.NAME)
            if mark is not None:
                handle: Handle = mark.handle
                return handle
    return None


def _described(model: Any) -> str:
    path = getattr(getattr(model, "config", None), "_name_or_path", "")
    return f"checkpoint {path!r}" if path else f"this {type(model).__qualname__}"
