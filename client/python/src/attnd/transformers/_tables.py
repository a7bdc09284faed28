"""Bias tables: the current table of a layer, and where the server has the same table."""

from __future__ import annotations

import hashlib
import struct
import threading
from typing import Any, Dict, List, NamedTuple, Optional, Tuple

import numpy as np
import torch

from attnd import T5Buckets, Table
from attnd.errors import (
    Aborted,
    AlreadyExists,
    Error,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    PermissionDenied,
    ResourceExhausted,
    Unauthenticated,
    Unavailable,
    Unimplemented,
)
from attnd.transformers._refused import Refused

_MAX_UPLOADS = 3
_T5_RULE = 0  # its number in the server's hash
# The errors of a server, or a proxy in front of it, that does not accept uploads, or not this one.
_REFUSALS = (
    FailedPrecondition,
    InvalidArgument,
    PermissionDenied,
    ResourceExhausted,
    Unauthenticated,
    Unimplemented,
)


class Content(NamedTuple):
    """A table by its content.

    Attributes:
        bidirectional: True for an encoder's table, False for a decoder's.
        num_buckets, max_distance, heads: sizes.
        values: float32 [num_buckets, heads] as bytes.
    """

    bidirectional: bool
    num_buckets: int
    max_distance: int
    heads: int
    values: bytes

    @property
    def side(self) -> str:
        """The table's name in a model that has only this table."""
        return "encoder" if self.bidirectional else "decoder"

    def array(self) -> np.ndarray[Any, Any]:
        return np.frombuffer(self.values, np.float32).reshape(self.num_buckets, self.heads)

    def digest(self) -> bytes:
        """The table's part of the content hash, as in src/model/content_hash.cc."""
        numbers = (self.heads, _T5_RULE, self.num_buckets, self.max_distance, int(self.bidirectional))
        return hashlib.sha256(struct.pack("=6q", *numbers, len(self.values) // 4) + self.values).digest()


# The tables that one call or session uses: that of an encoder layer, or those of all layers of a decoder that have one.
Contents = Tuple[Content, ...]


def _names(contents: Contents) -> List[str]:
    """The tables' names in a model that has only these tables."""
    side = contents[0].side
    return [side] if len(contents) == 1 else [f"{side}.{i}" for i in range(len(contents))]


def content_hash(contents: Contents) -> str:
    """The content hash of a model that has only these tables, as src/model/content_hash.cc computes it."""
    hasher = hashlib.sha256()
    for name, content in sorted(zip(_names(contents), contents)):
        hasher.update(struct.pack("=q", len(name)) + name.encode() + content.digest())
    return hasher.hexdigest()


class Place(NamedTuple):
    """Where a server has tables.

    Attributes:
        model: the model's name.
        tables: the tables' names in the model.
        content_hash: the model's.
        uploaded: True if the tables were uploaded for this, False if the server had them already.
    """

    model: str
    tables: Tuple[str, ...]
    content_hash: str
    uploaded: bool


class LayerTable:
    """The bias table of one attention layer, with its current weights. Thread-safe.

    Args:
        name: the layer's path.
        module: the attention layer.
        bidirectional: whether it is an encoder's.
    """

    def __init__(self, name: str, module: Any, bidirectional: bool) -> None:
        self.name = name
        self._module = module
        self._bidirectional = bidirectional
        self._last: Optional[Content] = None

    def content(self) -> Content:
        """Reads the current weights, a few kilobytes at most.

        Raises:
            Refused: the weights are not in the CPU's memory.
        """
        module = self._module
        embedding = module.relative_attention_bias
        weight = embedding.weight
        if weight.device.type != "cpu":
            raise Refused.of("model", "weights in the CPU's memory", f"weights on {weight.device}")
        if type(embedding) is not torch.nn.Embedding:
            # Not a plain table, for example an adapter that computes the rows.
            weight = embedding(torch.arange(module.relative_attention_num_buckets))
        values = weight.detach().to(torch.float32).contiguous().numpy().tobytes()
        last = self._last
        if last is not None and last.values == values:
            return last
        content = Content(
            self._bidirectional,
            int(module.relative_attention_num_buckets),
            int(module.relative_attention_max_distance),
            int(weight.shape[1]),
            values,
        )
        self._last = content
        return content


class ServerTables:
    """Finds and uploads tables on one server. Thread-safe.

    Args:
        client: of the server.
        describe: the model, for messages that say what to load if uploads are refused.
    """

    def __init__(self, client: Any, describe: str) -> None:
        self._client = client
        self._describe = describe
        self._lock = threading.Lock()
        self._places: Dict[Contents, Place] = {}

    def place(self, contents: Contents) -> Place:
        """Finds the tables in one model, or uploads them.

        Raises:
            FailedPrecondition: the server does not have them and refuses the upload.
        """
        place = self._places.get(contents)
        if place is not None:
            return place
        with self._lock:
            place = self._places.get(contents)
            if place is None:
                place = self._find(contents) or self._upload_patiently(contents)
                self._places = {**self._places, contents: place}
            return place

    def forget(self, contents: Contents, place: Place) -> None:
        """Records that the server no longer has the tables at `place`."""
        with self._lock:
            if self._places.get(contents) == place:
                self._places = {key: value for key, value in self._places.items() if key != contents}

    def has_changed(self, place: Place) -> bool:
        """Whether the server now has other content at `place`; False if the server cannot be asked."""
        try:
            return bool(self._client.get_model(place.model).content_hash != place.content_hash)
        except NotFound:
            return True
        except Error:
            return False

    def _find(self, contents: Contents, uploaded: bool = False) -> Optional[Place]:
        expected = content_hash(contents)
        models = self._client.list_models()
        for model in models:
            if model.content_hash == expected:
                return Place(model.name, tuple(_names(contents)), expected, uploaded)
        # A model loaded from a checkpoint may also have the other side's or further layers' tables, and so another
        # hash: compare table by table.
        for model in models:
            if all(any(_alike(table, content) for table in model.tables.values()) for content in contents):
                place = self._compare(model.name, contents)
                if place is not None:
                    return place
        return None

    def _compare(self, name: str, contents: Contents) -> Optional[Place]:
        try:
            model = self._client.get_model(name, include_values=True)
        except NotFound:
            return None  # unloaded in between
        names = [
            next((table.name for table in model.tables.values() if _same(table, content)), None) for content in contents
        ]
        found = tuple(name for name in names if name is not None)
        return Place(name, found, model.content_hash, False) if len(found) == len(contents) else None

    def _upload_patiently(self, contents: Contents) -> Place:
        """Uploads, and repeats that while the server restarts, because the client does not repeat uploads. Looking for
        the tables waits for the server."""
        for _ in range(_MAX_UPLOADS - 1):
            try:
                return self._upload(contents)
            except Unavailable:
                pass
        return self._upload(contents)

    def _upload(self, contents: Contents) -> Place:
        expected = content_hash(contents)
        model_name = f"t5-{contents[0].side}-{expected[:16]}"
        failure: Optional[Error] = None
        for name, content in zip(_names(contents), contents):
            rule = T5Buckets(content.num_buckets, content.max_distance, content.array())
            table = Table(rule, bidirectional=content.bidirectional, name=name)
            try:
                model = self._client.upload_table(model_name, table)
            except AlreadyExists as error:
                failure = error  # another client is uploading the same tables
            except Unavailable as error:
                failure = error  # the answer was lost; the table may have been uploaded
                break
            except _REFUSALS as error:
                raise self._not_there(contents, error) from error
        if failure is None and model.content_hash == expected:
            return Place(model_name, tuple(_names(contents)), expected, True)
        found = self._find(contents, uploaded=True)
        if found is not None:
            return found
        raise failure or Aborted(f"model {model_name!r} of {self._client.target} was changed while it was uploaded")

    def _not_there(self, contents: Contents, error: Error) -> Error:
        content = contents[0]
        sizes = f"{content.num_buckets} buckets, max distance {content.max_distance}, {content.heads} heads"
        several = f"{len(contents)} tables" if len(contents) > 1 else "the table"
        return FailedPrecondition.of(
            "table",
            f"a model on {self._client.target} with the bias of {self._describe}",
            f"none, and a refused upload of it ({type(error).__name__}: {error}). Load {self._describe} there (attnctl"
            f" models load, or a folder in the server's --model_root), or let it take uploads. It has {several} of"
            f" {sizes}; content hash {content_hash(contents)}",
        )


def _alike(table: Any, content: Content) -> bool:
    rule = table.rule
    return (
        isinstance(rule, T5Buckets)
        and table.bidirectional == content.bidirectional
        and (rule.num_buckets, rule.max_distance, table.heads)
        == (content.num_buckets, content.max_distance, content.heads)
    )


def _same(table: Any, content: Content) -> bool:
    return _alike(table, content) and bool(table.rule.values.tobytes() == content.values)
