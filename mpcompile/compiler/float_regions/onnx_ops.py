"""A FloatOp, a single-node ONNX model, to TVM's own Relax operators, through TVM's ONNX importer."""

from __future__ import annotations

import os
import traceback
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from io import StringIO
from typing import Any

import numpy as np
import tvm
from tvm import relax
from tvm.relax.expr_functor import PyExprMutator, mutator

from mpcompile.compiler.float_regions.contraction import Vectors
from mpcompile.compiler.float_regions.misread import misread
from mpcompile.compiler.float_regions.onnx_recurrent import recurrent_operators
from mpcompile.errors import MissingDependency, ModelError
from mpcompile.ir.graph import FloatOp

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Imported:
    """The node as a Relax function, with a batch axis of 1; `dtypes` of its parameters, `shapes` of its results. `called`:
    PrimFuncs that it calls, by their GlobalVars: what TVM's importer writes of operators that Relax does not have (Pad by
    reflection, Tile, Einsum, …)."""

    function: Any
    called: Mapping[Any, Any]
    dtypes: list[str]
    shapes: list[Shape]


def import_float_op(node: FloatOp, inputs: Sequence[Shape], outputs: Sequence[Shape], vectors: Vectors) -> Imported:
    """`inputs` and `outputs`: shapes without batch. `vectors`: of the target, for kernels that TVM lacks.

    Raises ModelError naming node and operator where TVM's importer does not take it or gives other shapes. It opens no
    builder of ours, so that a failure leaves none unfinished."""
    try:
        import onnx
    except ImportError as error:
        raise MissingDependency(
            f'node {node.name} ({node.op_type}) runs in float, which needs onnx: pip install "mpcompile[compile]"'
        ) from error
    model = onnx.load_model_from_string(node.model)
    constants = {t.name for t in model.graph.initializer}
    declared = [i for i in model.graph.input if i.name not in constants]
    if len(declared) != len(inputs):
        raise ModelError(f"node {node.name} ({node.op_type}) reads {len(inputs)} tensors, its model {len(declared)}")
    if otherwise := misread(model, inputs, outputs):
        raise ModelError(f"node {node.name} ({node.op_type}) cannot be compiled: {otherwise}")
    dtypes = [str(onnx.helper.tensor_dtype_to_np_dtype(i.type.tensor_type.elem_type)) for i in declared]
    shapes = {i.name: [1, *shape] for i, shape in zip(declared, inputs)}
    of = {i.name: d for i, d in zip(declared, dtypes)}
    try:
        mod = _import(model, shapes, of, vectors)
    except Exception as error:  # the importer raises whatever its Python happens to: it all means the same
        reason = str(error).strip().splitlines()[-1:] or [type(error).__name__]
        _forget(error)
        mod = _import_function(model, shapes, of, vectors)
        if mod is None:
            raise ModelError(
                f"node {node.name} ({node.op_type}) cannot be compiled: TVM's importer says: {reason[0]}"
            ) from None
    called = {gvar: function for gvar, function in mod.functions.items() if gvar.name_hint != "main"}
    return Imported(mod["main"], called, dtypes, _checked(node, mod["main"], outputs))


def _import(model: Any, shapes: dict[str, list[int]], dtypes: dict[str, str], vectors: Vectors) -> Any:
    """The IRModule that TVM's importer makes of a model."""
    from tvm.relax.frontend.onnx import from_onnx

    with warnings.catch_warnings(), recurrent_operators(vectors):
        warnings.simplefilter("ignore")  # the importer warns of what onnx.checker says; the frontend checked
        with redirect_stdout(StringIO()):  # it prints what it refuses, before it raises the reason
            mod = from_onnx(model, shape_dict=shapes, dtype_dict=dtypes)
        mod = relax.transform.DecomposeOpsForInference()(mod)
        return relax.transform.CanonicalizeBindings()(mod)


def _import_function(model: Any, shapes: dict[str, list[int]], dtypes: dict[str, str], vectors: Vectors) -> Any:
    """The same of the operators that ONNX defines a model's operators by (Celu, Swish, …); None where it defines none so,
    or TVM's importer takes these neither."""
    from onnx.inliner import inline_selected_functions

    names = [("", node.op_type) for node in model.graph.node]
    try:
        written = inline_selected_functions(model, names, inline_schema_functions=True)
        if [n.op_type for n in written.graph.node] == [n.op_type for n in model.graph.node]:
            return None
        return _import(written, shapes, dtypes, vectors)
    except Exception as error:  # of the inliner's C++, or the importer's
        _forget(error)
        return None


def _forget(error: BaseException) -> None:
    """Lets go of what a failed import left half built, now and silently: TVM warns on stderr of unfinished builders."""
    before, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        traceback.clear_frames(error.__traceback__)
    finally:
        os.dup2(before, 2)
        os.close(before)
        os.close(nowhere)


def _checked(node: FloatOp, function: Any, outputs: Sequence[Shape]) -> list[Shape]:
    """The results' shapes, batch included. Raises ModelError where they are not those of `outputs`."""
    kind = function.ret_ty
    kinds: list[Any] = list(kind.fields) if isinstance(kind, relax.TupleType) else [kind]  # pyright: ignore[reportAttributeAccessIssue]
    if len(kinds) != len(outputs):
        raise ModelError(f"node {node.name} ({node.op_type}) has {len(outputs)} outputs, TVM's operator {len(kinds)}")
    shapes = []
    for kind, wanted in zip(kinds, outputs):
        sizes: Any = _sizes(kind)
        if sizes is None or not all(isinstance(n, int | tvm.tirx.IntImm) for n in sizes):
            raise ModelError(f"node {node.name} ({node.op_type}) gives a tensor whose shape only a run can tell")
        shapes.append(tuple(int(n) for n in sizes))
        if not shapes[-1]:  # every output has a batch axis: this is what the importer puts where it computes none
            raise ModelError(f"node {node.name} ({node.op_type}): TVM's operator has no output {len(shapes) - 1}")
        if np.prod(shapes[-1], dtype=np.int64) != np.prod(wanted, dtype=np.int64):
            raise ModelError(f"node {node.name} ({node.op_type}) gives {shapes[-1]}, the model says {(1, *wanted)}")
    return shapes


def _sizes(kind: Any) -> Any:
    """The extents of a tensor's type; None where they are not known, or it is no tensor."""
    known = isinstance(kind, relax.TensorType) and isinstance(kind.shape, relax.ShapeExpr)
    return kind.shape.values if known else None  # pyright: ignore[reportAttributeAccessIssue, reportOptionalMemberAccess]


def emit_float_op(
    imported: Imported,
    args: Sequence[Any],
    outputs: Sequence[Shape],
    emit: Callable[[Any], Any],
    add: Callable[[Any, str], Any],
) -> list[Any]:
    """The node's outputs, float32 with a batch axis of 1, in the order of `outputs` (without it).

    `args` are float32 with a batch axis of 1; they are cast to the dtypes that the model declares, results to float32.
    `emit` binds a value to a new variable, `add` puts a PrimFunc into the module, under a name that resembles the given
    one, and returns its GlobalVar.
    """
    functions = {gvar.name_hint: add(function, gvar.name_hint) for gvar, function in imported.called.items()}
    inside = [a if dtype == "float32" else emit(relax.op.astype(a, dtype)) for a, dtype in zip(args, imported.dtypes)]
    results = _inlined(imported.function, inside, emit, functions)
    return [_float32(value, got, (1, *shape), emit) for value, got, shape in zip(results, imported.shapes, outputs)]


def _inlined(function: Any, args: Sequence[Any], emit: Callable[[Any], Any], functions: Mapping[str, Any]) -> list[Any]:
    """The bindings of `function` emitted one after another, its parameters and the functions that it calls replaced; what
    it returns, a list."""
    replace = _Replace(dict(zip(function.params, args)), functions)
    for block in function.body.blocks:
        for binding in block.bindings:
            value = replace.visit_expr(binding.value)
            simple = isinstance(value, relax.Var | tvm.ir.Constant | relax.Tuple)
            replace.known[binding.var] = value if simple else emit(value)
    result: Any = replace.visit_expr(function.body.body)
    if isinstance(result.ty, relax.TupleType):
        fields = (
            result.fields
            if isinstance(result, relax.Tuple)
            else [emit(relax.TupleGetItem(result, i)) for i in range(len(result.ty.fields))]  # pyright: ignore[reportAttributeAccessIssue]
        )
        return list(fields)
    return [result]


@mutator
class _Replace(PyExprMutator):
    """Variables by expressions, functions by others: GlobalVars, by name."""

    def __init__(self, known: dict, functions: Mapping[str, Any]):
        super().__init__()
        self.known, self.functions = known, functions

    def visit_global_var_(self, op: Any) -> Any:
        return self.functions[op.name_hint]

    def visit_var_(self, op: relax.Var) -> relax.Expr:
        return self.known.get(op, op)

    def visit_dataflow_var_(self, op: relax.DataflowVar) -> relax.Expr:
        return self.known.get(op, op)


def _float32(value: Any, got: Shape, shape: Shape, emit: Callable[[Any], Any]) -> Any:
    """`value`, whose shape is `got`, as a float32 variable of `shape`."""
    if str(value.ty.dtype) != "float32":
        value = emit(relax.op.astype(value, "float32"))
    if got != shape:
        value = emit(reshape(value, shape))
    return value if isinstance(value, relax.Var) else emit(relax.op.add(value, relax.const(0.0, "float32")))


def reshape(value: Any, shape: Shape) -> Any:
    """The same bytes under another shape."""
    return relax.op.reshape(value, shape)  # pyright: ignore[reportArgumentType]  # it takes any tuple of ints
