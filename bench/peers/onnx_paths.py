"""ONNX Runtime's ways to compute attention with an added bias on the CPU (fp32). Inputs and outputs stay bound."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper

from case import Inputs
from path import Path


def versions() -> dict[str, str]:
    return {"onnxruntime": onnxruntime.__version__}


def prepare(name: str, inputs: Inputs) -> Path:
    return PATHS[name](inputs)


def _bind(inputs: Inputs, nodes, feeds: dict[str, np.ndarray], output_shape, opset: int):
    """A session over `nodes`, whose output is "out", and a function that runs it once and returns the output."""
    values = {name: helper.make_tensor_value_info(name, TensorProto.FLOAT, x.shape) for name, x in feeds.items()}
    out = helper.make_tensor_value_info("out", TensorProto.FLOAT, output_shape)
    graph = helper.make_graph(nodes, "attention", list(values.values()), [out])
    domains = [helper.make_opsetid("", opset), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(graph, opset_imports=domains, ir_version=10)
    onnx.checker.check_model(model)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = inputs.case.threads
    options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    binding = session.io_binding()
    for name, x in feeds.items():
        binding.bind_ortvalue_input(name, onnxruntime.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(x)))
    result = onnxruntime.OrtValue.ortvalue_from_shape_and_type(output_shape, np.float32)
    binding.bind_ortvalue_output("out", result)

    def run():
        session.run_with_iobinding(binding)
        return result

    return run


def _by_rows(x: np.ndarray) -> np.ndarray:
    """[batch, heads, rows, dim] as [batch, rows, heads * dim], the layout of MultiHeadAttention."""
    batch, heads, rows, dim = x.shape
    return np.ascontiguousarray(x.transpose(0, 2, 1, 3)).reshape(batch, rows, heads * dim)


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
        "k_transposed": inputs.k.transpose(0, 1, 3, 2),
        "v": inputs.v,
        "mask": inputs.mask()[None],
    }
    return Path(_bind(inputs, nodes, feeds, inputs.q.shape, 21), lambda out: out.numpy())


def ort_multi_head(inputs: Inputs) -> Path:
    """com.microsoft.MultiHeadAttention with an attention_bias that holds the causal mask too."""
    case = inputs.case
    names = ["q", "k", "v", "", "", "mask"]
    node = helper.make_node(
        "MultiHeadAttention", names, ["out"], domain="com.microsoft", num_heads=case.heads, scale=1.0
    )
    feeds = {"q": _by_rows(inputs.q), "k": _by_rows(inputs.k), "v": _by_rows(inputs.v), "mask": inputs.mask()[None]}
    shape = (case.batch, case.queries, case.heads * case.dim)

    def output(out) -> np.ndarray:
        return out.numpy().reshape(case.batch, case.queries, case.heads, case.dim).transpose(0, 2, 1, 3)

    return Path(_bind(inputs, [node], feeds, shape, 21), output)


def ort_attention(inputs: Inputs) -> Path:
    """ONNX's own Attention operator (opset 23) with an added mask."""
    node = helper.make_node("Attention", ["q", "k", "v", "mask"], ["out"], scale=1.0)
    feeds = {"q": inputs.q, "k": inputs.k, "v": inputs.v, "mask": inputs.mask()[None]}
    return Path(_bind(inputs, [node], feeds, inputs.q.shape, 23), lambda out: out.numpy())


PATHS = {path.__name__: path for path in (ort_products, ort_multi_head, ort_attention)}
