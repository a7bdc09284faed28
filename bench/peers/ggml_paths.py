"""ggml's ways to compute attention with an added bias on the CPU, called through the libraries that llama-cpp-python
brings (requirements-ggml.txt).

llama.cpp itself does not use its flash attention for T5, for it takes no bias beside its mask; here the bias is put
into the mask, which must be fp16.
"""

from __future__ import annotations

import ctypes
import importlib.metadata
import importlib.util
import pathlib

import numpy as np

import pages
from case import Inputs
from path import Path

F32, F16 = 0, 1  # enum ggml_type
SLACK_BYTES = 16 << 20  # graph, tensor headers and alignment


class _InitParams(ctypes.Structure):
    _fields_ = [("mem_size", ctypes.c_size_t), ("mem_buffer", ctypes.c_void_p), ("no_alloc", ctypes.c_bool)]


def _load():
    """libggml-base and libggml-cpu with the signatures that are used here; all pointers are opaque."""
    root = importlib.util.find_spec("llama_cpp")
    if root is None:
        raise ModuleNotFoundError("llama-cpp-python is not installed")
    folder = pathlib.Path(root.origin).parent / "lib"
    base = ctypes.CDLL(str(folder / "libggml-base.so"), mode=ctypes.RTLD_GLOBAL)
    cpu = ctypes.CDLL(str(folder / "libggml-cpu.so"), mode=ctypes.RTLD_GLOBAL)
    pointer, number, real = ctypes.c_void_p, ctypes.c_int64, ctypes.c_float
    signatures = [
        (base.ggml_init, pointer, [_InitParams]),
        (base.ggml_free, None, [pointer]),
        (base.ggml_version, ctypes.c_char_p, []),
        (base.ggml_new_tensor_4d, pointer, [pointer, ctypes.c_int, number, number, number, number]),
        (base.ggml_get_data, pointer, [pointer]),
        (base.ggml_new_graph, pointer, [pointer]),
        (base.ggml_build_forward_expand, None, [pointer, pointer]),
        (base.ggml_flash_attn_ext, pointer, [pointer] * 5 + [real] * 3),
        (base.ggml_mul_mat, pointer, [pointer] * 3),
        (base.ggml_soft_max_ext_inplace, pointer, [pointer] * 3 + [real] * 2),
        (base.ggml_backend_graph_compute, ctypes.c_int, [pointer, pointer]),
        (base.ggml_backend_free, None, [pointer]),
        (cpu.ggml_backend_cpu_init, pointer, []),
        (cpu.ggml_backend_cpu_set_n_threads, None, [pointer, ctypes.c_int]),
    ]
    for function, result, arguments in signatures:
        function.restype, function.argtypes = result, arguments
    return base, cpu


_base, _cpu = _load()


def versions() -> dict[str, str]:
    package = importlib.metadata.version("llama-cpp-python")
    return {"ggml": f"{_base.ggml_version().decode()} (llama-cpp-python {package})"}


def prepare(name: str, inputs: Inputs) -> Path:
    return PATHS[name](inputs)


class _Graph:
    """A ggml context, its tensors and one computation. Tensors are given as [batch, heads, rows, dim] arrays.

    The context lies on the case's pages; ggml places all tensors in it, and the graph's output.
    """

    def __init__(self, data_bytes: int, inputs: Inputs):
        self._arena = inputs.empty((data_bytes + SLACK_BYTES,), np.uint8)
        self._context = _base.ggml_init(_InitParams(self._arena.nbytes, self._arena.ctypes.data, False))
        self._backend = _cpu.ggml_backend_cpu_init()
        _cpu.ggml_backend_cpu_set_n_threads(self._backend, inputs.case.threads)

    def __del__(self):
        _base.ggml_backend_free(self._backend)
        _base.ggml_free(self._context)

    def tensor(self, values: np.ndarray) -> int:
        kind = {np.dtype(np.float32): F32, np.dtype(np.float16): F16}[values.dtype]
        values = np.ascontiguousarray(values)
        made = _base.ggml_new_tensor_4d(self._context, kind, *reversed(values.shape))
        ctypes.memmove(_base.ggml_get_data(made), values.ctypes.data, values.nbytes)
        return made

    def span(self, tensor: int, size: int) -> pages.Span:
        return _base.ggml_get_data(tensor), size

    def apply(self, operation, *arguments) -> int:
        return operation(self._context, *arguments)

    def finish(self, result: int, shape: tuple[int, ...]):
        """A function that computes `result` and returns it as a view of the given shape."""
        graph = _base.ggml_new_graph(self._context)
        _base.ggml_build_forward_expand(graph, result)
        data = ctypes.cast(_base.ggml_get_data(result), ctypes.POINTER(ctypes.c_float))
        view = np.ctypeslib.as_array(data, shape)

        def run() -> np.ndarray:
            if _base.ggml_backend_graph_compute(self._backend, graph) != 0:
                raise RuntimeError("ggml_backend_graph_compute failed")
            return view

        return run


def _flash(inputs: Inputs, kind: type) -> Path:
    case = inputs.case
    mask = inputs.mask()[None].astype(np.float16)
    k, v = inputs.k.astype(kind), inputs.v.astype(kind)
    graph = _Graph(2 * inputs.q.nbytes + k.nbytes + v.nbytes + mask.nbytes, inputs)
    tensors = [graph.tensor(x) for x in (inputs.q, k, v, mask)]
    memory = (graph.span(tensors[1], k.nbytes), graph.span(tensors[2], v.nbytes))
    result = graph.apply(_base.ggml_flash_attn_ext, *tensors, 1.0, 0.0, 0.0)
    run = graph.finish(result, (case.batch, case.queries, case.heads, case.dim))
    note = f"mask fp16, K and V {kind.__name__}"
    return Path(run, lambda out: out.transpose(0, 2, 1, 3), memory, precision="fp16", note=note)


def ggml_flash(inputs: Inputs) -> Path:
    """ggml_flash_attn_ext with fp32 K and V."""
    return _flash(inputs, np.float32)


def ggml_flash_fp16(inputs: Inputs) -> Path:
    """ggml_flash_attn_ext with fp16 K and V, as llama.cpp keeps its cache."""
    return _flash(inputs, np.float16)


def ggml_products(inputs: Inputs) -> Path:
    """mul_mat, soft_max_ext with the bias as its mask, mul_mat; V comes transposed, as mul_mat needs it."""
    case = inputs.case
    mask = inputs.mask()[None]
    logits_bytes = 4 * case.batch * case.heads * case.queries * case.keys
    graph = _Graph(2 * inputs.q.nbytes + 2 * inputs.k.nbytes + mask.nbytes + logits_bytes, inputs)
    q, k, bias = (graph.tensor(x) for x in (inputs.q, inputs.k, mask))
    v_transposed = graph.tensor(inputs.v.transpose(0, 1, 3, 2))
    weights = graph.apply(_base.ggml_soft_max_ext_inplace, graph.apply(_base.ggml_mul_mat, k, q), bias, 1.0, 0.0)
    result = graph.apply(_base.ggml_mul_mat, v_transposed, weights)
    memory = (graph.span(k, inputs.k.nbytes), graph.span(v_transposed, inputs.v.nbytes))
    return Path(graph.finish(result, inputs.q.shape), lambda out: out, memory)


PATHS = {path.__name__: path for path in (ggml_flash, ggml_flash_fp16, ggml_products)}
