"""Which tensor of the graph each tensor of the file was read as: what others compute from the file is compared by it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mpcompile.frontend.importer import Importer
from mpcompile.frontend.oncodes import on_grid_name
from mpcompile.frontend.values import Activation, Codes, Constant
from mpcompile.ir.graph import Graph


@dataclass(frozen=True, eq=False)
class FileTensor:
    """A tensor of the file by its name there, and what it stands for: real value of `graph` = scale·(value − zero).

    `scale` and `zero`: float64 [1], or [C] along the channels; the file's tensor holds codes where `codes`.
    """

    file: str
    graph: str
    scale: np.ndarray
    zero: np.ndarray
    codes: bool = False

    def real(self, value: np.ndarray) -> np.ndarray:
        """A value of the file's tensor, without the batch axis if it has one, as the graph's: float32."""
        along = (-1, *[1] * (value.ndim - 1)) if value.ndim else ()
        return (self.scale.reshape(along) * (value - self.zero.reshape(along))).astype(np.float32)


@dataclass(frozen=True, eq=False)
class SourceFile:
    """A file as it was read. `inputs`: the model's inputs, and the types that the file gives them. `halves`: whether some
    of its tensors are float16 or bfloat16, which are read as float32."""

    path: str
    graph: Graph
    tensors: list[FileTensor]
    inputs: dict[str, np.dtype]
    halves: bool = False


def file_tensors(imp: Importer) -> list[FileTensor]:
    """All of the file that are tensors of the graph, which is complete; codes, too: what operators on codes write is
    nowhere else in their file."""
    one, none = np.ones(1), np.zeros(1)
    found, kept = [], imp.graph.types
    for name, held in imp.values.items():
        if isinstance(held, Codes) and held.spacing.size == 1:
            own = held.tensor  # what a float operator picks lies on the grid untold
            names = [t for t in (name, on_grid_name(held)) if t in kept]
            tensor = next((t for t in names if kept[t].quantizer or t == own), None)
            if name in kept and tensor != name:  # the codes are an output, in float32
                found.append(FileTensor(name, name, one, none))
            elif tensor is not None:
                found.append(FileTensor(name, tensor, held.spacing, np.array([float(held.zero)]), codes=True))
        if not isinstance(held, Activation):
            continue
        if held.tensor in kept:
            found.append(FileTensor(name, held.tensor, one, none))
        if held.scaled and held.scaled[0] in kept and held.scaled[0] not in imp.values:
            found.append(FileTensor(name, held.scaled[0], 1 / held.scaled[1], none))
    for node in imp.model.graph:
        if node.op_type != "DequantizeLinear":
            continue
        codes, *parameters = [(v.name or "") if v is not None else "" for v in node.inputs]
        real, (scale, *zero) = imp.values.get(node.outputs[0].name or ""), [imp.values.get(n) for n in parameters]
        if not isinstance(imp.values.get(codes), Codes) or not isinstance(real, Activation) or real.tensor not in kept:
            continue
        if isinstance(scale, Constant):
            offset = zero[0].array if zero and isinstance(zero[0], Constant) else none
            found.append(FileTensor(codes, real.tensor, _flat(scale.array), _flat(offset), codes=True))
    return found


def _flat(array: np.ndarray) -> np.ndarray:
    return np.asarray(array, np.float64).reshape(-1)
