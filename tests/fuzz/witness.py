"""What others compute for a file: ONNX Runtime with its optimisations off, or qonnx; and the comparison with the import,
layer by layer on the witness's own codes, so that a rounding that went the other way does not spread."""

from __future__ import annotations

import warnings
from collections import Counter

import numpy as np
import onnx
from onnx import helper

from mpcompile.frontend.importer import QONNX_DOMAINS
from mpcompile.ir.graph import Graph, Node, Quantize, Quantizer, TensorType
from mpcompile.reference.interpret import codes, interpret, quantize
from tests.fuzz.kind import Aside, Wrong

FLOAT = onnx.TensorProto.FLOAT
MOST = 1 << 22
"""Elements of all tensors of a graph that is compared; larger ones take too long."""
HAIR, HALF_HAIR = 1e-5, 2.5e-3
"""What float32 sums in another order are apart: of the largest value, and of a step of the grid."""
READS = {"QLinearConv": {"input": 0}, "QLinearMatMul": {"a": 0}, "QGemm": {"a": 0}, "QLinearAdd": {"a": 0, "b": 3},
         "QLinearMul": {"a": 0, "b": 3}, "QLinearAveragePool": {"input": 0}, "QLinearGlobalAveragePool": {"input": 0},
         "QLinearSigmoid": {"input": 0}, "QLinearLeakyRelu": {"input": 0}, "QLinearSoftmax": {"input": 0}}  # fmt: skip
"""Operator on codes → the real tensors that the import makes of its inputs, as they are called behind the output's name."""


def is_small(graph: Graph) -> bool:
    return sum(int(np.prod(kind.shape)) for kind in graph.types.values()) <= MOST


def is_qonnx(model: onnx.ModelProto) -> bool:
    return any(node.domain in QONNX_DOMAINS for node in model.graph.node)


def beyond_witnesses(model: onnx.ModelProto) -> bool:
    """Whether the witness's own numbers do not hold: ONNX Runtime's of 2 bits, of biases or zero points near the end of 32
    bits, which it adds and subtracts in that type, and of operators on codes with int8 weights whose sums of 16 bits
    saturate on AVX2; qonnx's where what a quantizer is told is no float32, since it computes in that type, and where a
    BatchNormalization's constant is read elsewhere too, for which it has other numbers than ONNX Runtime has of that node
    alone."""
    types = {t.name: t.data_type for t in model.graph.initializer}
    reads = Counter(i for node in model.graph.node for i in node.input)
    for node in model.graph.node:
        if is_qonnx(model) and node.op_type == "BatchNormalization" and any(reads[i] > 1 for i in node.input[1:]):
            return True
        if node.domain in QONNX_DOMAINS and any(types.get(i, FLOAT) != FLOAT for i in node.input):
            return True
    if {onnx.TensorProto.INT2, onnx.TensorProto.UINT2} & set(types.values()):
        return True
    on_codes = any(node.op_type in ("QLinearConv", "QLinearMatMul", "QGemm") for node in model.graph.node)
    zeros = {i for node in model.graph.node if node.op_type == "DequantizeLinear" for i in node.input[2:3]}
    for tensor in model.graph.initializer:
        if not on_codes and tensor.name not in zeros:
            continue
        if tensor.data_type == onnx.TensorProto.INT32 or (on_codes and tensor.data_type == onnx.TensorProto.INT8):
            most = 1 << 28 if tensor.data_type == onnx.TensorProto.INT32 else 64
            try:
                array = onnx.numpy_helper.to_array(tensor).astype(np.int64)
            except Exception:
                return True
            if array.ndim and (np.abs(array) > most).any():
                return True
    return False


def sample(graph: Graph, model: onnx.ModelProto, seed: int = 0) -> dict[str, np.ndarray]:
    """An input by name, without batch axis; whole numbers where the file's are integers."""
    rng, kinds = np.random.default_rng(seed), {v.name: v.type.tensor_type.elem_type for v in model.graph.input}
    found = {}
    for name in graph.inputs:
        shape = graph.types[name].shape
        if kinds.get(name, 1) == FLOAT:
            found[name] = rng.standard_normal(shape).astype(np.float32)
        else:
            low = 0 if kinds[name] in (onnx.TensorProto.UINT8, onnx.TensorProto.UINT16) else -100
            found[name] = rng.integers(low, 100, shape).astype(np.float32)
    return found


def one_sample(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy with batch 1, and without initializers among the inputs."""
    model = onnx.ModelProto.FromString(model.SerializeToString())
    constants = {t.name for t in model.graph.initializer}
    inputs = [v for v in model.graph.input if v.name not in constants]
    del model.graph.input[:]
    model.graph.input.extend(inputs)
    for value in (*model.graph.input, *model.graph.output):
        if value.type.tensor_type.shape.dim:
            value.type.tensor_type.shape.dim[0].dim_value = 1
    return model


def fed(model: onnx.ModelProto, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    types = {v.name: v.type.tensor_type.elem_type for v in model.graph.input}
    return {n: x[None].astype(helper.tensor_dtype_to_np_dtype(types[n])) for n, x in inputs.items() if n in types}


def by_qonnx(model: onnx.ModelProto, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    from qonnx.core.modelwrapper import ModelWrapper
    from qonnx.core.onnx_exec import execute_onnx
    from qonnx.transformation.infer_shapes import InferShapes

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = one_sample(model)
        wrapped = ModelWrapper(model).transform(InferShapes())
        return execute_onnx(wrapped, fed(model, inputs), return_full_exec_context=True)


def by_onnxruntime(model: onnx.ModelProto, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    import onnxruntime

    model = one_sample(model)
    shown = real_inputs(model)
    inferred = onnx.shape_inference.infer_shapes(model)
    present = {o.name for o in model.graph.output}
    wanted = {o for n in model.graph.node for o in n.output} - present
    floats = [v for v in inferred.graph.value_info if v.type.tensor_type.elem_type == FLOAT]
    model.graph.output.extend(v for v in floats if v.name in wanted and v.name not in shown)
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in shown)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    names = [o.name for o in session.get_outputs()]
    return dict(zip(names, session.run(names, fed(model, inputs))))


def real_inputs(model: onnx.ModelProto) -> list[str]:
    """Adds a DequantizeLinear for what each operator on codes reads, called as the import calls it; their names."""
    made, present = [], {o for n in model.graph.node for o in n.output}
    for node in list(model.graph.node):
        reads = READS.get(node.op_type, {})
        if node.op_type == "QLinearConcat":
            reads = {f"input{i // 3}": i for i in range(2, len(node.input), 3)}
        for word, i in reads.items():
            name = f"{node.output[0]}.{word}" if node.output else ""
            if name and name not in present and len(node.input) > i + 2:
                model.graph.node.append(helper.make_node("DequantizeLinear", node.input[i : i + 3], [name]))
                made.append(name)
    return made


def witnessed(graph: Graph, model: onnx.ModelProto, aside: Aside, seed: int = 0) -> str:
    """ "compared", or why not. Raises Wrong at a difference."""
    if beyond_witnesses(model):
        return "not comparable"
    if not is_small(graph) or not graph.nodes:
        return "large" if graph.nodes else "nothing to compare"
    inputs = sample(graph, model, seed)
    whose = "qonnx" if is_qonnx(model) else "ONNX Runtime"
    aside(whose)
    try:
        found = (by_qonnx if whose == "qonnx" else by_onnxruntime)(model, inputs)
    except Exception:  # a file that the witness does not take, or takes for damaged
        aside("")
        return f"not taken by {whose}"
    aside("")
    theirs = {
        n: np.asarray(a)[0]
        for n, a in found.items()
        if np.ndim(a) and len(a) == 1 and np.isfinite(np.asarray(a, np.float64)).all()
    }
    return compared(graph, inputs, theirs)


def compared(graph: Graph, inputs: dict[str, np.ndarray], theirs: dict[str, np.ndarray]) -> str:
    written = [t for n in graph.nodes for t in n.outputs]
    theirs = {t: theirs[t] for t in written if t in theirs}
    for t, a in theirs.items():
        if a.shape != graph.types[t].shape:
            raise Wrong(f"shape: {graph.types[t].shape}, the witness has {a.shape} | {t}")
    given = {t: a.astype(np.float32) for t, a in theirs.items() if graph.types[t].quantizer}
    with np.errstate(all="ignore"):
        mine = interpret(graph, inputs, given=given)
    by_output = {t: n for n in graph.nodes for t in n.outputs}
    for t, a in theirs.items():
        node, quantizer = by_output[t], graph.types[t].quantizer
        if not all(np.isfinite(mine[r]).all() for r in (*node.inputs, t)):
            continue  # of NaN no quantizer is defined
        if not all(r in theirs or r in inputs or _derived(r, by_output, theirs, inputs) for r in node.inputs):
            continue
        if quantizer:
            wrong = different_codes(graph, node, quantizer, given.get(node.inputs[0], mine[node.inputs[0]]), mine[t], a)
            if wrong:
                raise Wrong(f"codes: {node.op} differs | {t}: {wrong}")
        else:
            room = 1e-3 * max(float(np.abs(a).max(initial=0)), 1e-3)
            apart = np.abs(mine[t].astype(np.float64) - a)
            if apart.max(initial=0) > room:
                raise Wrong(
                    f"values: {_named(node)} differs | {t}: by {apart.max():g}, the largest is {np.abs(a).max():g}"
                )
    return "compared" if theirs else "nothing to compare"


def different_codes(
    graph: Graph, node: Node, quantizer: Quantizer, read: np.ndarray, mine: np.ndarray, theirs: np.ndarray
):
    """ "", or what is different. Of what a Quantize reads, a float32 sum in another order lies a hair to either side: its
    codes are those of either."""
    x = np.asarray(read, np.float32)
    with np.errstate(all="ignore"):
        found = np.rint(theirs.astype(np.float64) / quantizer.scale)
    if not np.isfinite(found).all() or np.abs(found).max(initial=0) > 1 << 20:
        return "the witness's values are on no grid"
    low = high = codes(mine, quantizer)
    if isinstance(node, Quantize):
        room = np.float32(HAIR * float(np.abs(x).max(initial=0)) + HALF_HAIR * quantizer.spacing)
        of = TensorType(x.shape)
        low, high = (codes(quantize(x + side * room, quantizer, of), quantizer) for side in (-1, 1))
    bad = (found < low) | (found > high)
    if not bad.any():
        return ""
    return f"{int(bad.sum())} of {bad.size} by at most {np.abs(found - codes(mine, quantizer)).max():g} steps"


def _named(node) -> str:
    return getattr(node, "op_type", node.op)


def _derived(tensor: str, by_output: dict, theirs: dict, inputs: dict) -> bool:
    """Whether a tensor that the witness does not have is made of such as it has, without a Quantize between."""
    node = by_output.get(tensor)
    if node is None or node.op == "Quantize":
        return False
    return all(t in theirs or t in inputs or _derived(t, by_output, theirs, inputs) for t in node.inputs)
