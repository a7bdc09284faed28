"""The methods of both clients, written once as operations. `Client` blocks in them, `AsyncClient` awaits them."""

from __future__ import annotations

from functools import partial
from typing import Any, Iterable, List, Optional, Sequence, Union

from attnd import _attention, _convert, _wire
from attnd._arguments import integer, model_name, text
from attnd._core import Core, ask_server
from attnd._operation import Operation
from attnd._request import ComputeReply, ComputeRequest
from attnd.errors import Error, Internal
from attnd.models import BiasWindow, FailedModel, Model, ServerInfo, ServingStatus, Table
from attnd.v1 import model_pb2, server_pb2

_MODELS = "/attnd.v1.ModelService/"
_SERVER_INFO = "/attnd.v1.ServerService/GetServerInfo"
_HEALTH = "/grpc.health.v1.Health/Check"


def attend(
    core: Core,
    q: Any,
    k: Any,
    v: Any,
    model: Optional[str],
    *,
    table: Optional[str] = None,
    version: int = 0,
    layout: str = "bhsd",
    mask: Optional[str] = None,
    scale: Optional[float] = None,
    query_offset: Optional[int] = None,
    query_offsets: Optional[Sequence[int]] = None,
    query_lengths: Optional[Sequence[int]] = None,
    key_lengths: Optional[Sequence[int]] = None,
    key_starts: Optional[Sequence[int]] = None,
    key_mask: Any = None,
    window_left: Optional[int] = None,
    window_right: Optional[int] = None,
    prefix_lengths: Optional[Sequence[int]] = None,
    key_bias: Any = None,
    query_segments: Optional[Sequence[int]] = None,
    key_segments: Optional[Sequence[int]] = None,
    kv_rows: Optional[Sequence[int]] = None,
    first_head: Optional[int] = None,
    product_precision: Any = None,
    output_dtype: Any = None,
    return_log_sum_exp: bool = False,
    out: Any = None,
    timeout: Optional[float] = None,
    metadata: Any = None,
) -> Operation[Any]:
    """Computes one batch of attention with a model's bias: softmax(scale * q.k + bias) . v.

    The other arguments are those of :class:`attnd.ComputeRequest`, which describes each.

    Args:
        q: [batch, heads, query_length, head_dim] in ``layout``; float32, float16 or bfloat16. A numpy, torch or JAX
            array in the CPU's memory, or anything with DLPack or the buffer protocol. Views may have any strides; the
            client does not copy a [batch, sequence, heads, dim] array that is passed as its ``transpose(1, 2)``.
        k: [batch, kv_heads, key_length, head_dim], of q's kind and dtype.
        v: [batch, kv_heads, key_length, value_head_dim], of q's kind and dtype.
        model: name of a loaded model; None adds no bias.
        timeout: seconds; None is the client's, ``float("inf")`` is none.
        metadata: gRPC metadata to send: a mapping, or pairs of a lower-case key and a value.

    Returns:
        The output [batch, heads, query_length, value_head_dim] in ``layout``, of the kind of ``q`` (numpy if that is
        neither torch nor JAX); ``out`` itself if that was given. With ``return_log_sum_exp`` a pair of the output and
        the float32 log-sum-exp [batch, heads, query_length].

    Raises:
        InvalidArgument: an argument is out of range, or two arguments contradict each other; ``error.field`` names it.
        NotFound: no such model, version or table.
        ResourceExhausted: the call exceeds one of the server's limits; the error names it.
        DeadlineExceeded: not done within the timeout.
        Unavailable: the server was not reached, or is stopping.
        FailedPrecondition: the client is closed, or in a forked child.

    A large call is sent in several pieces at once, over all servers that the target's name resolves to if
    ``load_balancing`` is "round_robin". If a piece fails, the call fails with its error and the others are cancelled.

    Example:
        >>> q, k, v = (np.ones((1, 8, 16, 64), np.float32) for _ in range(3))
        >>> client.attend(q, k, v, "t5-tiny").shape
        (1, 8, 16, 64)
        >>> client.attend(q, k, v, "t5-tiny", mask="none", key_starts=[3]).shape  # three keys of padding on the left
        (1, 8, 16, 64)
    """
    deadline, pairs = core.begin(timeout, metadata)
    request = ComputeRequest(
        q,
        k,
        v,
        model,
        table,
        version,
        layout,
        mask,
        scale,
        query_offset,
        query_lengths,
        key_lengths,
        first_head,
        product_precision,
        output_dtype,
        return_log_sum_exp,
        out,
        query_offsets,
        key_starts,
        key_mask,
        window_left,
        window_right,
        prefix_lengths,
        key_bias,
        query_segments,
        key_segments,
        kv_rows,
    )
    reply = yield from _attention.compute(core, core.io, request, deadline, pairs)
    return _result(reply)


def compute(
    core: Core, request: ComputeRequest, *, timeout: Optional[float] = None, metadata: Any = None
) -> Operation[ComputeReply]:
    """As :meth:`attend`, but returns everything that the server reports about the call.

    Args:
        request: what to compute.
        timeout: seconds; None is the client's.
        metadata: gRPC metadata to send.

    Returns:
        The output, the log-sum-exp, the model's version and content hash, the times, and the transport.

    Raises:
        Error: as attend.

    Example:
        >>> reply = client.compute(attnd.ComputeRequest(q, k, v, "t5-tiny", return_log_sum_exp=True))
        >>> reply.version, reply.log_sum_exp.shape
        (1, (1, 8, 16))
    """
    deadline, pairs = core.begin(timeout, metadata)
    return (yield from _attention.compute(core, core.io, request, deadline, pairs))


def attend_many(
    core: Core,
    requests: Iterable[ComputeRequest],
    *,
    return_errors: bool = False,
    timeout: Optional[float] = None,
    metadata: Any = None,
) -> Operation[List[Any]]:
    """Computes many batches, several at once over the client's channels and the target's servers.

    Args:
        requests: any number of requests. The iterable is read as requests are needed, on the caller's thread and on
            threads of the client.
        return_errors: return the error of a failed call in the place of its result. Otherwise the first error is
            raised and the other calls are cancelled.
        timeout: seconds for all calls together; None is the client's.
        metadata: gRPC metadata to send with each call.

    Returns:
        The results in the order of the requests, each as attend returns it.

    Raises:
        Error: as attend.

    Example:
        >>> requests = [attnd.ComputeRequest(q, k, v, name) for name in ("t5-tiny", "nobody")]
        >>> [type(result).__name__ for result in client.attend_many(requests, return_errors=True)]
        ['ndarray', 'NotFound']
    """
    replies = yield from compute_many(core, requests, return_errors=return_errors, timeout=timeout, metadata=metadata)
    return [reply if isinstance(reply, Error) else _result(reply) for reply in replies]


def compute_many(
    core: Core,
    requests: Iterable[ComputeRequest],
    *,
    return_errors: bool = False,
    timeout: Optional[float] = None,
    metadata: Any = None,
) -> Operation[List[Union[ComputeReply, Error]]]:
    """As :meth:`attend_many`, but returns everything that the server reports about each call.

    Example:
        >>> [reply.version for reply in client.compute_many([attnd.ComputeRequest(q, k, v, "t5-tiny")] * 3)]
        [1, 1, 1]
    """
    deadline, pairs = core.begin(timeout, metadata)
    return (yield from _attention.compute_many(core, core.io, requests, return_errors, deadline, pairs))


def list_models(core: Core, *, timeout: Optional[float] = None, metadata: Any = None) -> Operation[List[Model]]:
    """Returns all loaded models, in order of name, without the tables' values.

    Raises:
        Unavailable: the server was not reached, or is stopping.
        DeadlineExceeded: not done within the timeout.

    Example:
        >>> "t5-tiny" in [model.name for model in client.list_models()]
        True
    """
    deadline, pairs = core.begin(timeout, metadata)
    models: List[Model] = []
    request = model_pb2.ListModelsRequest()
    while True:
        ask = partial(ask_server, core, _MODELS + "ListModels", request, model_pb2.ListModelsResponse, deadline, pairs)
        page = yield from core.repeated(core.io, deadline, ask)
        models += map(_convert.model_of, page.models)
        request.page_token = page.next_page_token
        if not request.page_token:
            return models


def list_failed_models(
    core: Core, *, timeout: Optional[float] = None, metadata: Any = None
) -> Operation[List[FailedModel]]:
    """Returns the models in the server's model root that could not be loaded when it started and have not been loaded
    since, in order of path; the first 1000.

    Raises:
        Unavailable: the server was not reached, or is stopping.
        DeadlineExceeded: not done within the timeout.

    Example:
        >>> [f"{model.path}: {model.reason}" for model in client.list_failed_models()]
        []
    """
    deadline, pairs = core.begin(timeout, metadata)
    request = model_pb2.ListModelsRequest(page_size=1)
    ask = partial(ask_server, core, _MODELS + "ListModels", request, model_pb2.ListModelsResponse, deadline, pairs)
    page = yield from core.repeated(core.io, deadline, ask)
    return [_convert.failed_model_of(model) for model in page.failed_models]


def get_model(
    core: Core,
    name: str,
    *,
    version: int = 0,
    include_values: bool = False,
    timeout: Optional[float] = None,
    metadata: Any = None,
) -> Operation[Model]:
    """Describes one model.

    Args:
        name: the model's.
        version: 0 is the current one; any other version than the current one is NotFound.
        include_values: also fetch the tables' values.
        timeout: seconds; None is the client's.
        metadata: gRPC metadata to send.

    Raises:
        NotFound: no such model or version.

    Example:
        >>> client.get_model("t5-tiny", include_values=True).tables["decoder"].rule.values.shape
        (32, 8)
    """
    deadline, pairs = core.begin(timeout, metadata)
    request = model_pb2.GetModelRequest(
        name=model_name(name, "name"),
        version=integer("version", version, 0, 2**64 - 1),
        include_values=bool(include_values),
    )
    ask = partial(ask_server, core, _MODELS + "GetModel", request, model_pb2.GetModelResponse, deadline, pairs)
    return _convert.model_of((yield from core.repeated(core.io, deadline, ask)).model)


def load_model(
    core: Core, path: str, *, name: Optional[str] = None, timeout: Optional[float] = None, metadata: Any = None
) -> Operation[Model]:
    """Loads a model from the server's model root. The call is sent once and never repeated.

    Args:
        path: of a Hugging Face checkpoint folder, a GGUF file or a JSON file, relative to the server's model root.
        name: the model's name. None is the folder's name or the file's name without its extension; for a folder of
            the Hugging Face Hub's cache it is the repository's name, "org/name".
        timeout: seconds; None is the client's.
        metadata: gRPC metadata to send.

    Raises:
        InvalidArgument: the name or path is invalid, or the model is; the message says where.
        NotFound: no such file.
        AlreadyExists: a model of this name is loaded.
        PermissionDenied: the path leaves the model root.
        FailedPrecondition: the server has no model root.
        ResourceExhausted: the model is too large, or too many models are loaded.

    Example:
        >>> try:
        ...     client.load_model("checkpoints/mine")
        ... except attnd.FailedPrecondition:
        ...     print("this server has no model root")
        this server has no model root
    """
    request = model_pb2.LoadModelRequest(path=text("path", path, "a path"), name=text("name", name, "a name"))
    return (yield from _change(core, "LoadModel", request, model_pb2.LoadModelResponse, timeout, metadata))


def reload_model(core: Core, name: str, *, timeout: Optional[float] = None, metadata: Any = None) -> Operation[Model]:
    """Loads a model again from its file; if that fails, the old version stays. Sent once and never repeated.

    Raises:
        NotFound: no such model.
        FailedPrecondition: the model did not come from a file.
        Error: as load_model.

    Example:
        >>> try:
        ...     client.reload_model("t5-tiny")
        ... except attnd.FailedPrecondition as error:
        ...     print(error.field)
        name
    """
    request = model_pb2.ReloadModelRequest(name=model_name(name, "name"))
    return (yield from _change(core, "ReloadModel", request, model_pb2.ReloadModelResponse, timeout, metadata))


def unload_model(core: Core, name: str, *, timeout: Optional[float] = None, metadata: Any = None) -> Operation[None]:
    """Removes a model; calls in flight finish with it. The call is sent once and never repeated.

    Raises:
        NotFound: no such model.

    Example:
        >>> _ = client.upload_table("mine", attnd.Table(attnd.AlibiSlopes([0.5, 0.25])))
        >>> client.unload_model("mine")
    """
    request = model_pb2.UnloadModelRequest(name=model_name(name, "name"))
    deadline, pairs = core.begin(timeout, metadata)
    ask = partial(ask_server, core, _MODELS + "UnloadModel", request, model_pb2.UnloadModelResponse, deadline, pairs)
    yield from core.once(core.io, deadline, ask)


def upload_table(
    core: Core,
    model: str,
    table: Table,
    *,
    replace: bool = False,
    timeout: Optional[float] = None,
    metadata: Any = None,
) -> Operation[Model]:
    """Creates a model from a table, or adds the table to a model that was uploaded. The call is sent once and never
    repeated.

    Args:
        model: the model's name.
        table: the table with its values.
        replace: replace a table of the same name.
        timeout: seconds; None is the client's.
        metadata: gRPC metadata to send.

    Returns:
        The model in the version that is now current.

    Raises:
        InvalidArgument: the table is invalid.
        AlreadyExists: the model has this table and ``replace`` is not set, or the model was not uploaded.
        ResourceExhausted: the table is too large, or too many models are loaded.

    Example:
        >>> values = np.zeros((32, 8), np.float32)
        >>> client.upload_table("flat", attnd.Table(attnd.T5Buckets(32, 128, values)), replace=True).tables
        {'decoder': Table(decoder: T5, 32 buckets, max distance 128; causal, 8 heads)}
        >>> client.unload_model("flat")
    """
    request = _convert.upload_request(model, table, replace)
    return (yield from _change(core, "UploadTable", request, model_pb2.UploadTableResponse, timeout, metadata))


def bias(
    core: Core,
    model: str,
    *,
    queries: int = 8,
    keys: Optional[int] = None,
    query_start: int = 0,
    key_start: int = 0,
    table: Optional[str] = None,
    version: int = 0,
    mask: Optional[str] = None,
    heads: Union[str, Sequence[int], None] = None,
    timeout: Optional[float] = None,
    metadata: Any = None,
) -> Operation[BiasWindow]:
    """Returns the bias of a window of queries and keys, as numbers and as a picture.

    Args:
        model: name of a loaded model.
        queries: number of queries, the rows.
        keys: number of keys, the columns; None is the number of queries.
        query_start: position of the first query.
        key_start: position of the first key.
        table: "decoder" (also if None), "encoder", "decoder.N", "encoder.N".
        version: of the model; 0 is the current one.
        mask: "causal", "none", or None (the table's own).
        heads: to return values for; None or "all" is all.
        timeout: seconds; None is the client's.
        metadata: gRPC metadata to send.

    Raises:
        InvalidArgument: an argument is out of range.
        NotFound: no such model, version or table.
        ResourceExhausted: the window is too large.

    Example:
        >>> client.bias("t5-tiny", queries=4, keys=6, heads=[0, 3]).values.shape
        (2, 4, 6)
    """
    deadline, pairs = core.begin(timeout, metadata)
    request = _convert.bias_request(model, version, table, query_start, queries, key_start, keys, mask, heads)
    ask = partial(ask_server, core, _MODELS + "GetBias", request, model_pb2.GetBiasResponse, deadline, pairs)
    return _convert.bias_window_of(request, (yield from core.repeated(core.io, deadline, ask)))


def server_info(core: Core, *, timeout: Optional[float] = None, metadata: Any = None) -> Operation[ServerInfo]:
    """Returns the server's version, kernel, threads, limits and memory in use.

    Example:
        >>> client.server_info().limits["max_head_dim"]
        4096
    """
    deadline, pairs = core.begin(timeout, metadata)
    request, response = server_pb2.GetServerInfoRequest(), server_pb2.GetServerInfoResponse
    ask = partial(ask_server, core, _SERVER_INFO, request, response, deadline, pairs)
    return _convert.server_info_of((yield from core.repeated(core.io, deadline, ask)))


def health(
    core: Core, service: str = "", *, timeout: Optional[float] = None, metadata: Any = None
) -> Operation[ServingStatus]:
    """Asks whether the server, or one of its services, is serving. The call is sent once and never repeated.

    Args:
        service: "attnd.v1.AttentionService" for example, or "liveness", which stays SERVING while a stopping server
            finishes the calls that it has accepted; "" is the server as a whole.
        timeout: seconds; None is the client's.
        metadata: gRPC metadata to send.

    Raises:
        NotFound: no such service.
        Unavailable: the server was not reached.

    Example:
        >>> client.health()
        <ServingStatus.SERVING: 1>
    """
    deadline, pairs = core.begin(timeout, metadata)
    name = text("service", service, "a service's name").encode()
    # HealthCheckRequest {1: service} and HealthCheckResponse {1: status} are encoded and decoded by hand, because their
    # modules belong to another package.
    payload = _wire.bytes_field_head(1, len(name)) + name
    answer: bytes = yield lambda: core.io.unary(_HEALTH, payload, deadline, pairs)
    status = 0
    try:
        for number, value, _, _ in _wire.fields(memoryview(answer)):
            if number == 1 and isinstance(value, int):
                status = value
        return ServingStatus(status)
    except ValueError:
        raise Internal("the server's reply is no HealthCheckResponse") from None


def _result(reply: ComputeReply) -> Any:
    return reply.output if reply.log_sum_exp is None else (reply.output, reply.log_sum_exp)


def _change(core: Core, method: str, request: Any, response: Any, timeout: Any, metadata: Any) -> Operation[Model]:
    """Calls a method that changes a model and returns the model."""
    deadline, pairs = core.begin(timeout, metadata)
    ask = partial(ask_server, core, _MODELS + method, request, response, deadline, pairs)
    return _convert.model_of((yield from core.once(core.io, deadline, ask)).model)
