"""ONNX's own backend tests, through the frontend and the reference.

A case is a model, its inputs and what must come out. One that is refused is tried again with every input but the first as a
constant: that is how files have weights, axes and shapes. DOUBLE is read as FLOAT, which changes no operator's meaning.
"""

from __future__ import annotations

import re
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper
from onnx.backend.test.loader import load_model_tests

from mpcompile.errors import MpError
from mpcompile.frontend import load
from mpcompile.ir.graph import FloatOp, Graph
from mpcompile.reference.compare import FLOAT_ATOL
from mpcompile.reference.interpret import interpret

OPTIONAL = onnx.defs.OpSchema.FormalParameterOption.Optional

FOUND = Path(__file__).parents[2] / "docs/generate/onnx_backend.json"
"""Operator → how many of its cases pass, are refused, and the node types that it was read as; and how many of those with
float operators were compiled, which tests/compile/onnx_backend.py adds."""

EXECUTORS_DISAGREE = {
    "test_attention_4d_with_past_and_present_qk_matmul_bias_3d_mask_causal",
    "test_attention_4d_with_past_and_present_qk_matmul_bias_4d_mask_causal",
    "test_resize_downsample_scales_cubic_align_corners",
    "test_resize_downsample_scales_linear_align_corners",
}
"""What ONNX Runtime, our reference for operators in float, computes otherwise than ONNX says."""

ROUNDED_TO_HALVES = {"test_castlike_FLOAT_to_BFLOAT16", "test_cast_FLOAT_to_BFLOAT16"}
"""Halves are computed in float32: what is cast to bfloat16 keeps its bits."""

REFUSALS = (
    r"is \w+; FLOAT, FLOAT16, .* would be accepted",  # a type that float32 does not stand for
    r"is no tensor, but (Sequence|Optional)Type; a tensor would be accepted",
    r"has no batch axis; ",
    r"has a dynamic dimension \d+ \(0\); ",  # a tensor of no values
    r"has a batch of 0; ",
    r"one scale over a batch of \d+; ",
    r"indices that are computed at run time; ",
    r"inputs with different batch sizes ",
    r"(it mixes the batch|it mixes the samples of a batch|it moves elements across the batch)",
    r"whether it treats samples of a batch apart cannot be told",
    r"its shapes do not fit",
    r"writes \w+; FLOAT, BOOL and integers of up to 64 bits would be accepted",
    r"a cast to \w+; FLOAT would be accepted",
    r"reads integer codes; ",
    r"input \d is integer codes; ",
    r"the model's output \S+ is a constant; ",
    r"an output that depends on no input and is no constant; ",
    r"the shape of its output \S+ depends on data; ",
    r"its scale is computed at run time or missing; ",
    r"its mask is read; ",
    r"control flow; ",
    r"there is no reference for it: ",  # ONNX Runtime does not run Attention with a past and without a present
)
"""What a refused case may be told, without the name of the node or input."""


@dataclass
class Outcome:
    """`kind`: "passed", "refused", "wrong", "fault"; `said`: the message. Of what was read: the graph, the inputs, and its
    outputs, with their batch axis. `nodes`: what the graph consists of."""

    kind: str
    said: str = ""
    graph: Graph = field(default_factory=Graph, repr=False)
    inputs: dict[str, np.ndarray] = field(default_factory=dict)
    outputs: dict[str, np.ndarray] = field(default_factory=dict)

    @property
    def nodes(self) -> set[str]:
        return {"float" if isinstance(n, FloatOp) else n.op for n in self.graph.nodes}


@dataclass(frozen=True)
class Case:
    """`inputs` and `outputs` in the model's order; None for what is no tensor."""

    name: str
    model: onnx.ModelProto
    inputs: list[np.ndarray | None]
    outputs: list[np.ndarray | None]

    @property
    def operators(self) -> set[str]:
        return {n.op_type for n in self.model.graph.node}


def cases() -> Iterator[Case]:
    """Those of one operator, of ai.onnx: the expanded ones say the same of an operator's parts, many times."""
    for test in load_model_tests(kind="node"):
        folder = Path(str(test.model_dir))
        model = onnx.load(folder / "model.onnx")
        data = [_arrays(folder / "test_data_set_0", kind) for kind in ("input", "output")]
        case = Case(test.name, model, *data)
        if len(case.operators) == 1 and not any(n.domain for n in model.graph.node) and "_expanded" not in test.name:
            yield case
            if _leaves_out(model):
                yield _first_output(case)


def _leaves_out(model: onnx.ModelProto) -> bool:
    """Whether the model has outputs that a file may leave out, and mostly does: a mask, indices, a mean."""
    node, opset = model.graph.node[0], model.opset_import[0].version
    outputs = onnx.defs.get_schema(node.op_type, opset).outputs
    return len(model.graph.node) == 1 and len(node.output) > 1 and outputs[1:2] != [] and outputs[1].option == OPTIONAL


def _first_output(case: Case) -> Case:
    model = onnx.ModelProto.FromString(case.model.SerializeToString())
    del model.graph.output[1:], model.graph.node[0].output[1:]
    return Case(f"{case.name} (first output)", model, case.inputs, case.outputs[:1])


def _arrays(folder: Path, kind: str) -> list[np.ndarray | None]:
    return [_array((folder / f"{kind}_{i}.pb").read_bytes()) for i in range(len(list(folder.glob(f"{kind}_*.pb"))))]


def _array(data: bytes) -> np.ndarray | None:
    try:
        return numpy_helper.to_array(TensorProto.FromString(data))
    except Exception:  # a sequence or an optional, of another message's bytes
        return None


def attempt(case: Case, folder: Path) -> Outcome:
    """`folder`: for a file."""
    single = _single(case)
    found = _read(single, folder)
    if found.kind == "refused" and len(single.inputs) > 1 and all(x is not None for x in single.inputs):
        again = _read(_with_constants(single), folder)
        return again if again.kind != "refused" else found
    return found


def _single(case: Case) -> Case:
    """DOUBLE as FLOAT."""
    model = onnx.ModelProto.FromString(case.model.SerializeToString())
    for value in (*model.graph.input, *model.graph.output):
        if value.type.tensor_type.elem_type == TensorProto.DOUBLE:
            value.type.tensor_type.elem_type = TensorProto.FLOAT
    arrays = [[_single_array(a) for a in some] for some in (case.inputs, case.outputs)]
    return Case(case.name, model, *arrays)


def _single_array(array: np.ndarray | None) -> np.ndarray | None:
    return array.astype(np.float32) if array is not None and array.dtype == np.float64 else array


def _with_constants(case: Case) -> Case:
    model = onnx.ModelProto.FromString(case.model.SerializeToString())
    rest = zip(model.graph.input[1:], case.inputs[1:])
    arrays = [numpy_helper.from_array(x, v.name) for v, x in rest if x is not None]
    del model.graph.input[1:]
    model.graph.initializer.extend(arrays)
    return Case(case.name, model, case.inputs[:1], case.outputs)


def _read(case: Case, folder: Path) -> Outcome:
    path = folder / "case.onnx"
    onnx.save(case.model, path)
    try:
        graph = load(path)
        given = {v.name: x for v, x in zip(case.model.graph.input, case.inputs) if x is not None}
        samples = [{n: given[n][i] for n in graph.inputs} for i in range(graph.batch or 1)]
        results = [interpret(graph, sample) for sample in samples]
    except MpError as error:
        return Outcome("refused", str(error))
    except Exception as error:
        return Outcome("fault", f"{type(error).__name__}: {error}")
    mine = {name: np.stack([tensors[name] for tensors in results]) for name in graph.outputs}
    for name, y in zip((v.name for v in case.model.graph.output), case.outputs):
        if y is None or mine[name].shape != y.shape or not near(mine[name], y):
            return Outcome("wrong", f"{name} differs", graph, given, mine)
    return Outcome("passed", "", graph, given, mine)


def near(mine: np.ndarray, expected: np.ndarray) -> bool:
    """By onnx's own relative tolerance, and the absolute one of `verify`."""
    largest = np.abs(expected[np.isfinite(expected)]).max(initial=0)
    return np.allclose(mine, expected, rtol=1e-3, atol=max(1e-7, FLOAT_ATOL * largest), equal_nan=True)


def run_all() -> dict[str, dict[str, Outcome]]:
    """Operator → case → what came out."""
    found: dict[str, dict[str, Outcome]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for case in cases():
            (operator,) = case.operators
            found.setdefault(operator, {})[case.name] = attempt(case, Path(folder))
    return found


def counted(found: dict[str, dict[str, Outcome]]) -> dict[str, dict]:
    """What FOUND holds."""
    told = {}
    for operator, outcomes in sorted(found.items()):
        kinds = Counter(o.kind for name, o in outcomes.items() if name not in EXECUTORS_DISAGREE | ROUNDED_TO_HALVES)
        nodes = sorted(set().union(*(o.nodes for o in outcomes.values() if o.kind == "passed")))
        told[operator] = {"passed": kinds["passed"], "refused": kinds["refused"], "nodes": nodes}
    return told


def said(message: str) -> str:
    """A refusal without the node's name and what follows its kind."""
    return re.sub(r"^node \S+ \(\w+\): |^input \S+ ", "", message)
