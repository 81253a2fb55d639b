"""Our operator in Relax: `mpcompile.layer`, one fused layer over stored tensors, before it is legalised into a kernel.

    mpcompile.layer(*buffers of its input tensors) -> its output buffers (a tuple, where there are several)

attributes: `node` names the Layer, `what` describes it to a reader, `writes` the output buffers (Buffer.key), with
their `shapes` and `dtypes`. The operator is pure; its type follows from the attributes alone.
"""

from __future__ import annotations

from collections.abc import Sequence

import tvm
from tvm import relax

from mpcompile.ir.formats import Buffer
from mpcompile.kernels.tvm_names import buffer_of, tirx

LAYER = "mpcompile.layer"

VIEWS = ("relax.reshape", "relax.memory.view")
"""Operators that are never legalised: the same bytes under another shape or dtype."""


def _infer_type(call: relax.Call, _builder: relax.BlockBuilder):
    return _type([tuple(int(n) for n in shape) for shape in call.attrs["shapes"]], list(call.attrs["dtypes"]))


def _type(shapes: list[tuple[int, ...]], dtypes: list[str]):
    types = [relax.TensorType(shape, dtype) for shape, dtype in zip(shapes, dtypes)]
    return types[0] if len(types) == 1 else relax.TupleType(types)


tvm.ir.register_op_attr(LAYER, "FInferType", _infer_type)
tvm.ir.register_op_attr(LAYER, "FPurity", True)


def tensor_type(buffer: Buffer) -> relax.TensorType:
    return relax.TensorType(buffer.buffer_shape, buffer.dtype)


def layer_call(node: str, what: str, inputs: Sequence[relax.Expr], outputs: Sequence[Buffer]) -> relax.Call:
    """The call that stands for layer `node`, reading `inputs` and writing `outputs`."""
    attributes = tvm.ir.make_node(
        "ir.DictAttrs",
        node=node,
        what=what,
        writes=[b.key for b in outputs],
        shapes=[list(b.buffer_shape) for b in outputs],
        dtypes=[b.dtype for b in outputs],
    )
    return relax.Call(tvm.ir.Op.get(LAYER), list(inputs), attributes)


def parameters(function: tirx.PrimFunc) -> list[tuple[str, tuple[int, ...]]]:
    """(dtype, shape) of each argument of a PrimFunc over tensors."""
    buffers = [buffer_of(function, i) for i in range(len(function.params))]
    return [(str(b.dtype), tuple(int(n) for n in b.shape)) for b in buffers]
