"""The handle that attach() returns: records what was patched, and undoes it."""

from __future__ import annotations

import contextlib
import threading
import weakref
from types import TracebackType
from typing import Any, Dict, Iterator, List, Optional, Type, Union

import torch

from attnd import ComputeRequest
from attnd._arguments import integer
from attnd.errors import Aborted, Error, InvalidArgument, NotFound
from attnd.transformers import _closing, _decoder_forward
from attnd.transformers._bias import Bias
from attnd.transformers._decoder_cache import SessionCache
from attnd.transformers._decoders import Decoder
from attnd.transformers._families import Encoder, local_parts
from attnd.transformers._generation import prepared
from attnd.transformers._memory import SharedTensors
from attnd.transformers._projection import projections
from attnd.transformers._refused import Refused
from attnd.transformers._server import Connection
from attnd.transformers._tables import Content, Contents, LayerTable, Place, ServerTables
from attnd.transformers._undo import NAME, Implementation, Mark, Method

# How often a call looks up its table again: the server may restart, or models may be replaced, several times in a row.
_MAX_MOVES = 4
_patching = threading.Lock()


class Handle:
    """A model whose attention is computed by a server. A context manager that detaches at its end.

    Attributes:
        min_length: an encoder's sequences with fewer tokens than this are computed locally. May be set.
        min_cached_tokens: a decoder's self-attention is computed locally until its rows together have this many tokens.
            May be set.
        replay_bytes: the argument of :func:`attnd.transformers.attach`.

    Example:
        >>> handle = attnd.transformers.attach(model, min_length=0, min_cached_tokens=0)
        >>> handle.layers, handle.decoder_layers
        (3, 3)
        >>> handle.detach()
    """

    def __init__(
        self,
        model: Any,
        encoders: List[Encoder],
        decoders: List[Decoder],
        connection: Connection,
        replay_bytes: int,
        timeout: float,
    ) -> None:
        self.min_length = 0
        self.min_cached_tokens = 0
        self.replay_bytes = replay_bytes
        self.timeout = timeout
        self.client = connection.client
        self.memory = SharedTensors(connection.client)
        self._model = weakref.ref(model)
        self._model_name = type(model).__qualname__
        self._encoders = encoders
        self._decoders = decoders
        attached = [encoder.name for encoder in encoders] + [decoder.name for decoder in decoders]
        self._local_parts = local_parts(model, attached)
        self._connection = connection
        self._tables = ServerTables(connection.client, _described(model))
        self._layer_tables: Dict[str, List[LayerTable]] = {}  # by the path of the first layer that uses them
        self._methods: List[Method] = []
        self._caches: weakref.WeakSet[SessionCache] = weakref.WeakSet()
        for encoder in encoders:
            self._add_encoder(encoder)
        for decoder in decoders:
            self._add_decoder(model, decoder)
        self._attached = False

    # The public interface.

    @property
    def attached(self) -> bool:
        """Whether the model is attached."""
        return self._attached

    @property
    def target(self) -> str:
        """The server's gRPC name."""
        return self._connection.target

    @property
    def transport(self) -> str:
        """The transport that calls use now: "local", "shared_memory" or "grpc", as :attr:`attnd.Client.transport`."""
        transport: str = self._connection.client.transport
        return transport

    @property
    def layers(self) -> int:
        """Number of encoder layers whose self-attention the server computes."""
        return sum(len(encoder.layers) for encoder in self._encoders)

    @property
    def decoder_layers(self) -> int:
        """Number of decoder layers whose self and cross attention the server computes during generation."""
        return sum(len(decoder.self_layers) for decoder in self._decoders)

    @property
    def recovers(self) -> bool:
        """Whether a generation continues after its sessions were lost."""
        return self.replay_bytes > 0

    def tables(self) -> Dict[str, Place]:
        """Where the server has the bias tables, by the path of the first layer that uses them. Uploads tables that the
        server does not have."""
        return {name: self.place(_contents(tables)) for name, tables in self._layer_tables.items()}

    def cache(self, max_tokens: int) -> SessionCache:
        """Creates a cache for your own forward passes, as ``generate`` does for each of its calls.

        Args:
            max_tokens: the most tokens that a row may have.

        Returns:
            The argument ``past_key_values`` (since transformers 5.24: ``cache``) of the model's forward, for one batch.
            Close it or drop the last reference to it.

        Raises:
            Refused: the model has no attached decoder, or several.
        """
        max_tokens = integer("max_tokens", max_tokens, 1)
        if len(self._decoders) != 1:
            raise Refused.of("model", "a model with one attached decoder", f"{len(self._decoders)} of them")
        return SessionCache(self, self._decoders[0], max_tokens)

    def detach(self) -> None:
        """Makes the model compute its own attention again, closes the connection, and stops the server if the handle
        started it. A second call does nothing."""
        if self._attached:
            self.remove()
            self._attached = False
        for cache in list(self._caches):
            _closing.close_all(cache.sessions)
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
        layers = f"{self.layers} encoder and {self.decoder_layers} decoder layers"
        return f"<attnd.transformers.Handle {self._model_name}: {layers} {state} {self.target!r}>"

    def __str__(self) -> str:
        """What was patched, as lines of text."""
        if not self._attached:
            return f"detached from {self.target}"
        lines = [f"{self._model_name}: attention computed by attnd"]
        for encoder in self._encoders:
            lines.append(f"  {_part(encoder)}: self-attention of {len(encoder.layers)} layers")
        for decoder in self._decoders:
            count = len(decoder.self_layers)
            lines.append(f"  {_part(decoder)}: self and cross attention of {count} layers, with a cache of attnd's")
        try:
            for name, place in self.tables().items():
                how = "uploaded" if place.uploaded else "found"
                which = f"table {place.tables[0]}" if len(place.tables) == 1 else f"{len(place.tables)} tables"
                lines.append(f"  bias of {name}: {how}, {which} of model {place.model}")
            transport = self.transport
        except Error as error:
            transport = f"no way now: {error}"
        lines.append(f"  server: {self.target} ({self._connection.origin}), by {transport}")
        if self._encoders:
            lines.append(f"  encoder, sequences shorter than {self.min_length} tokens: local, by sdpa")
        if self._decoders:
            size = self.min_cached_tokens
            lines.append(f"  decoder, self-attention to fewer than {size} tokens of all rows together: local")
            kept = f"survived, by copies of at most {self.replay_bytes} bytes" if self.recovers else "errors"
            lines.append(f"  decoder, lost servers and sessions: {kept}")
        for name in self._local_parts:
            lines.append(f"  {name}: stays local, as it was")
        return "\n".join(lines)

    # Used by the patches.

    def compute(self, content: Content, query: Any, key: Any, value: Any, keys: Dict[str, Any], scale: float) -> Any:
        """Computes one layer's attention. query, key, value: [batch, heads, tokens, head_dim]; returns [batch, tokens,
        heads, head_dim]."""
        q, k, v = query.transpose(1, 2), key.transpose(1, 2), value.transpose(1, 2)
        out = self.memory.make((*q.shape[:3], v.shape[3]), q.dtype)
        contents = (content,)
        for _ in range(_MAX_MOVES):
            place = self.place(contents)
            request = ComputeRequest(
                q, k, v, place.model, place.tables[0], layout="bshd", mask="none", scale=scale, out=out, **keys
            )
            try:
                reply = self.client.compute(request, timeout=self.timeout)
            except NotFound:
                pass
            except InvalidArgument:
                if not self._tables.has_changed(place):
                    raise
            else:
                if reply.content_hash == place.content_hash:
                    return reply.output
            self.forget(contents, place)
        raise self.replaced_too_often(place)

    def contents_of(self, name: str) -> Contents:
        """The bias tables with the current weights, by their path in :meth:`tables`."""
        return _contents(self._layer_tables[name])

    def place(self, contents: Contents) -> Place:
        """Where the server has the tables; uploads them if it does not have them."""
        return self._tables.place(contents)

    def forget(self, contents: Contents, place: Place) -> None:
        """Records that the server no longer has the tables at `place`."""
        self._tables.forget(contents, place)

    def replaced_too_often(self, place: Place) -> Error:
        """The error if a table was gone or replaced at every attempt."""
        return Aborted(f"model {place.model!r} of {self.target} was replaced {_MAX_MOVES} times in a row")

    def note_cache(self, cache: SessionCache) -> None:
        """Registers a cache, whose sessions end when the model is detached."""
        self._caches.add(cache)

    # Patching.

    def _add_encoder(self, encoder: Encoder) -> None:
        table: Optional[LayerTable] = None
        for index, layer in enumerate(encoder.layers):
            if layer.has_relative_attention_bias:
                name = encoder.path(index)
                table = LayerTable(name, layer, bidirectional=True)
                self._layer_tables[name] = [table]
                self._methods.append(Bias(layer, self, table))
            if table is None:
                raise Refused.of("model", "a bias table in the first layer", "none")
            self._methods += projections(layer, self)

    def _add_decoder(self, model: Any, decoder: Decoder) -> None:
        self._layer_tables[decoder.path(0)] = [
            LayerTable(decoder.path(layer.index), layer.module, bidirectional=False) for layer in decoder.biased
        ]
        self._methods += _decoder_forward.forwards(decoder, self)
        self._methods += prepared(model, decoder, self)

    def put(self) -> None:
        """Patches the model."""
        with _patching:
            for encoder in self._encoders:
                for layer in encoder.layers:
                    vars(layer)[Mark.NAME] = Mark(self, encoder.takes_float_mask)
                _switch(encoder.stack.config)
                encoder.before = encoder.stack.config._attn_implementation_internal.before
            for decoder in self._decoders:
                vars(decoder.stack)[Mark.NAME] = Mark(self, False)
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
            for decoder in self._decoders:
                vars(decoder.stack).pop(Mark.NAME, None)

    @contextlib.contextmanager
    def suspended(self) -> Iterator[None]:
        """A context in which the model is not patched."""
        self.remove()
        try:
            yield
        finally:
            self.put()


def _switch(config: Any) -> None:
    """Sets the attention implementation of a config; counts users, because several encoders may share a config."""
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
    elif now == NAME:  # set by name since then; any other that was set since stays
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


def _contents(tables: List[LayerTable]) -> Contents:
    return tuple(table.content() for table in tables)


def _part(part: Union[Encoder, Decoder]) -> str:
    return part.name or "the model itself"


def _described(model: Any) -> str:
    path = getattr(getattr(model, "config", None), "_name_or_path", "")
    return f"checkpoint {path!r}" if path else f"this {type(model).__qualname__}"
