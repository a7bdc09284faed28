"""ONNX Runtime's ways to compute attention with an added bias on the CPU (fp32). Inputs and outputs stay bound."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper

import pages
from case import Inputs
from path import Path


def versions() -> dict[str, str]:
    return {"onnxruntime": onnxruntime.__version__}


def prepare(name: str, inputs: Inputs) -> Path:
    return PATHS[name](inputs)


def _value(values: np.ndarray) -> onnxruntime.OrtValue:
    """An OrtValue over `values` themselves; raises ValueError if ONNX Runtime would rather copy them."""
    value = onnxruntime.OrtValue.ortvalue_from_numpy(values)
    if value.data_ptr() != values.ctypes.data:
        raise ValueError("ONNX Runtime copied a tensor to memory of its own")
    return value


def _path(
    inputs: Inputs,
    nodes: list[onnx.NodeProto],
    feeds: dict[str, np.ndarray],
    output_shape: tuple[int, ...],
    opset: int,
    output: Callable[[np.ndarray], np.ndarray] = np.asarray,
) -> Path:
    """A session over `nodes`, which read the feeds and write "out"; `output` gives that the shape of the formula's."""
    described = {name: helper.make_tensor_value_info(name, TensorProto.FLOAT, x.shape) for name, x in feeds.items()}
    out = helper.make_tensor_value_info("out", TensorProto.FLOAT, output_shape)
    graph = helper.make_graph(nodes, "attention", list(described.values()), [out])
    domains = [helper.make_opsetid("", opset), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(graph, opset_imports=domains, ir_version=10)
    onnx.checker.check_model(model)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = inputs.case.threads
    options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    binding = session.io_binding()
    values = {name: _value(x) for name, x in feeds.items()}
    for name, value in values.items():
        binding.bind_ortvalue_input(name, value)
    result = inputs.empty(output_shape)
    bound_result = _value(result)
    binding.bind_ortvalue_output("out", bound_result)

    def run() -> np.ndarray:
        session.run_with_iobinding(binding)
        return result

    memory = tuple(pages.span(x) for name, x in feeds.items() if name.startswith(("k", "v")))
    # The binding does not keep the arrays behind its values alive.
    return Path(run, output, memory, kept=(values, bound_result))


def _by_rows(inputs: Inputs, x: np.ndarray) -> np.ndarray:
    """[batch, heads, rows, dim] as [batch, rows, heads * dim], the layout of MultiHeadAttention."""
    batch, heads, rows, dim = x.shape
    return inputs.place(x.transpose(0, 2, 1, 3)).reshape(batch, rows, heads * dim)


def ort_products(inputs: Inputs) -> Path:
    """MatMul, Add, Softmax, MatMul: the bias and the causal mask in one ready matrix."""
    nodes = [
        helper.make_node("MatMul", ["q", "k_transposed"], ["logits"]),
        helper.make_node("Add", ["logits", "mask"], ["biased"]),
        helper.make_node("Softmax", ["biased"], ["weights"], axis=-1),
        helper.make_node("MatMul", ["weights", "v"], ["out"]),
    ]
    feeds = {
        "q": inputs.q,
        "k_transposed": inputs.place(inputs.k.transpose(0, 1, 3, 2)),
        "v": inputs.v,
        "mask": inputs.mask()[None],
    }
    return _path(inputs, nodes, feeds, inputs.q.shape, 21)


def ort_multi_head(inputs: Inputs) -> Path:
    """com.microsoft.MultiHeadAttention with an attention_bias that holds the causal mask too."""
    case = inputs.case
    names = ["q", "k", "v", "", "", "mask"]
    node = helper.make_node(
        "MultiHeadAttention", names, ["out"], domain="com.microsoft", num_heads=case.heads, scale=1.0
    )
    feeds = {name: _by_rows(inputs, x) for name, x in (("q", inputs.q), ("k", inputs.k), ("v", inputs.v))}
    feeds["mask"] = inputs.mask()[None]
    shape = (case.batch, case.queries, case.heads * case.dim)

    def output(out: np.ndarray) -> np.ndarray:
        return out.reshape(case.batch, case.queries, case.heads, case.dim).transpose(0, 2, 1, 3)

    return _path(inputs, [node], feeds, shape, 21, output)


def ort_attention(inputs: Inputs) -> Path:
    """ONNX's own Attention operator (opset 23) with an added mask."""
    node = helper.make_node("Attention", ["q", "k", "v", "mask"], ["out"], scale=1.0)
    feeds = {"q": inputs.q, "k": inputs.k, "v": inputs.v, "mask": inputs.mask()[None]}
    return _path(inputs, [node], feeds, inputs.q.shape, 23)


PATHS = {path.__name__: path for path in (ort_products, ort_multi_head, ort_attention)}
