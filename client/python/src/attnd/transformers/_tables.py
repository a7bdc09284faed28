"""Bias tables: what a layer's is now, and where the server has the same."""

from __future__ import annotations

import hashlib
import struct
import threading
from typing import Any, Dict, List, NamedTuple, Optional

import numpy as np
import torch

from attnd import T5Buckets, Table
from attnd.errors import (
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

_NAME = "encoder"
_MAX_UPLOADS = 3
_T5_RULE = 0  # its number in the server's hash
# What a server, or a proxy before it, says that takes no uploads, or not this one.
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
        num_buckets, max_distance, heads: sizes.
        values: float32 [num_buckets, heads] as bytes.
    """

    num_buckets: int
    max_distance: int
    heads: int
    values: bytes

    def array(self) -> np.ndarray[Any, Any]:
        return np.frombuffer(self.values, np.float32).reshape(self.num_buckets, self.heads)

    def hash(self) -> str:
        """The content hash of a model whose only table is this, an encoder's, as src/model/content_hash.cc has it."""
        name = _NAME.encode()
        sizes = (self.heads, _T5_RULE, self.num_buckets, self.max_distance, 1, len(self.values) // 4)
        table = hashlib.sha256(struct.pack("=6q", *sizes) + self.values).digest()
        return hashlib.sha256(struct.pack("=q", len(name)) + name + table).hexdigest()


class Place(NamedTuple):
    """Where a server has a table.

    Attributes:
        model: the model's name.
        table: the table's.
        content_hash: of the model.
        uploaded: whether it was put there for this.
    """

    model: str
    table: str
    content_hash: str
    uploaded: bool


class LayerTable:
    """The bias table of one attention layer, as its weights are now. Thread-safe.

    Args:
        name: of the layer, for messages.
        module: the attention layer.
    """

    def __init__(self, name: str, module: Any) -> None:
        self.name = name
        self._module = module
        self._last: Optional[Content] = None

    def content(self) -> Content:
        """Looks at the weights, all of them: a kilobyte or a few.

        Raises:
            Refused: they are not in the CPU's memory.
        """
        module = self._module
        embedding = module.relative_attention_bias
        weight = embedding.weight
        if weight.device.type != "cpu":
            raise Refused.of("model", "weights in the CPU's memory", f"weights on {weight.device}")
        if type(embedding) is not torch.nn.Embedding:
            # Something that makes the rows, such as an adapter.
            weight = embedding(torch.arange(module.relative_attention_num_buckets))
        values = weight.detach().to(torch.float32).contiguous().numpy().tobytes()
        last = self._last
        if last is not None and last.values == values:
            return last
        content = Content(
            int(module.relative_attention_num_buckets),
            int(module.relative_attention_max_distance),
            int(weight.shape[1]),
            values,
        )
        self._last = content
        return content


class ServerTables:
    """Where the tables are on one server. Thread-safe.

    Args:
        client: of the server.
        describe: the model, for messages: what to load where uploads are refused.
    """

    def __init__(self, client: Any, describe: str) -> None:
        self._client = client
        self._describe = describe
        self._lock = threading.Lock()
        self._places: Dict[Content, Place] = {}

    def place(self, content: Content) -> Place:
        """Finds the table, or uploads it.

        Raises:
            FailedPrecondition: it is not there, and the server refuses the upload.
        """
        place = self._places.get(content)
        if place is not None:
            return place
        with self._lock:
            place = self._places.get(content)
            if place is None:
                place = self._find(content) or self._upload_patiently(content)
                self._places = {**self._places, content: place}
            return place

    def forget(self, content: Content, place: Place) -> None:
        """The server no longer has the table there."""
        with self._lock:
            if self._places.get(content) == place:
                self._places = {key: value for key, value in self._places.items() if key != content}

    def _find(self, content: Content) -> Optional[Place]:
        expected = content.hash()
        models = self._client.list_models()
        for model in models:
            if model.content_hash == expected:
                return Place(model.name, _NAME, expected, False)
        # A checkpoint's model has the decoder's tables or all layers' too, so that its hash is another one.
        for model in models:
            candidates = [table for table in model.tables.values() if _alike(table, content)]
            if candidates:
                place = self._compare(model.name, candidates, content)
                if place is not None:
                    return place
        return None

    def _compare(self, name: str, candidates: List[Any], content: Content) -> Optional[Place]:
        try:
            model = self._client.get_model(name, include_values=True)
        except NotFound:
            return None  # unloaded in between
        for candidate in candidates:
            table = model.tables.get(candidate.name)
            if table is not None and _alike(table, content) and table.rule.values.tobytes() == content.values:
                return Place(name, table.name, model.content_hash, False)
        return None

    def _upload_patiently(self, content: Content) -> Place:
        """Asks a server that restarts again, as the client does not; looking for the table waits for it."""
        for _ in range(_MAX_UPLOADS - 1):
            try:
                return self._upload(content)
            except Unavailable:
                pass
        return self._upload(content)

    def _upload(self, content: Content) -> Place:
        expected = content.hash()
        name = f"t5-encoder-{expected[:16]}"
        rule = T5Buckets(content.num_buckets, content.max_distance, content.array())
        try:
            model = self._client.upload_table(name, Table(rule, bidirectional=True, name=_NAME))
        except (AlreadyExists, Unavailable):
            # Somebody else has uploaded the same in between; or the answer was lost, and the table may be there.
            found = self._find(content)
            if found is not None:
                return found
            raise
        except _REFUSALS as error:
            raise self._not_there(content, error) from error
        return Place(name, _NAME, model.content_hash, True)

    def _not_there(self, content: Content, error: Error) -> Error:
        sizes = f"{content.num_buckets} buckets, max distance {content.max_distance}, {content.heads} heads"
        return FailedPrecondition.of(
            "table",
            f"a model on {self._client.target} with the bias table of {self._describe}",
            f"none, and a refused upload of it ({type(error).__name__}: {error}). Load {self._describe} there (attnctl"
            " models load, or a folder in the server's --model_root), or let it take uploads. The table has"
            f" {sizes}; content hash {content.hash()}",
        )


def _alike(table: Any, content: Content) -> bool:
    rule = table.rule
    return (
        isinstance(rule, T5Buckets)
        and table.bidirectional
        and (rule.num_buckets, rule.max_distance, table.heads)
        == (content.num_buckets, content.max_distance, content.heads)
    )
