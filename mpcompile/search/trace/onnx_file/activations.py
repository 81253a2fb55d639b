"""Functions of one number that exporters write in pieces: x·sigmoid(x), x·(1 + erf(x/√2))/2 and the like.

They are recognised by what they compute: the pieces between a tensor and one that depends on nothing else are run on a row
of numbers, and compared with each function that a search knows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn

from mpcompile.search.trace.onnx_file.node import FileNode

PIECES = (
    *("Add", "Sub", "Mul", "Div", "Pow", "Neg", "Clip", "Relu", "Min", "Max", "Reciprocal", "Identity"),
    *("Sigmoid", "HardSigmoid", "Tanh", "Erf", "Exp", "Log", "Softplus"),
)
KNOWN: tuple[Callable[[], nn.Module], ...] = (
    *(nn.SiLU, nn.Hardswish, nn.GELU, lambda: nn.GELU("tanh"), nn.Mish, nn.Hardsigmoid, nn.Sigmoid),
)
MOST = 10
"""Pieces of one function."""
ROW = torch.linspace(-9.0, 9.0, 577)


def whole_functions(
    nodes: Sequence[FileNode], make: Callable[[FileNode], nn.Module], kept: frozenset[str]
) -> dict[str, tuple[str, nn.Module, frozenset[str]]]:
    """Tensor that a function ends with → the tensor that it is of, the function, and the names of its pieces, which nobody
    else reads. `kept`: outputs of the graph."""
    writer = {name: node for node in nodes for name in node.outputs}
    place = {node.name: at for at, node in enumerate(nodes)}
    readers: dict[str, set[str]] = {}
    for node in nodes:
        for at, name in enumerate(node.inputs):
            if at not in node.constants:
                readers.setdefault(name, set()).add(node.name)
    found: dict[str, tuple[str, nn.Module, frozenset[str]]] = {}
    taken: set[str] = set()
    for node in reversed(nodes):
        if node.op not in ("Mul", "Div", "Clip", "HardSigmoid") or node.name in taken:
            continue
        for start, pieces in _regions(node, writer, place):
            names = frozenset(p.name for p in pieces)
            if len(pieces) < 2 or names & taken:
                continue
            inner = [t for p in pieces if p is not node for t in p.outputs]
            if any(t in kept or readers.get(t, set()) - names for t in inner):
                continue
            if (function := _known(start, node, pieces, make)) is not None:
                found[node.outputs[0]] = start, function, names
                taken |= names
                break
    return found


def _regions(
    end: FileNode, writer: Mapping[str, FileNode], place: Mapping[str, int]
) -> Iterator[tuple[str, tuple[FileNode, ...]]]:
    """(tensor, pieces) for each tensor before `end` that `end` is a function of alone, largest last; pieces in the order of
    their running. `place`: of each node in the file, where every node stands behind those that it reads."""
    pieces: list[FileNode] = [end]
    while len(pieces) <= MOST:
        inside = {t for p in pieces for t in p.outputs}
        read = {n for p in pieces for at, n in enumerate(p.inputs) if n and at not in p.constants and n not in inside}
        if len(read) == 1:
            yield next(iter(read)), tuple(reversed(pieces))
        nearest = [writer[n] for n in read if n in writer and writer[n].op in PIECES and _scalars(writer[n])]
        if not nearest:
            return
        pieces.append(max(nearest, key=lambda p: place[p.name]))  # the last to run: none of the others can read it


def _scalars(node: FileNode) -> bool:
    return all(c.size == 1 for c in node.constants.values())


def _known(
    start: str, end: FileNode, pieces: Sequence[FileNode], make: Callable[[FileNode], nn.Module]
) -> nn.Module | None:
    if not _scalars(end):
        return None
    values: dict[str, Tensor] = {start: ROW}
    for piece in pieces:
        given = [values[n] for at, n in enumerate(piece.inputs) if n and at not in piece.constants]
        values[piece.outputs[0]] = make(piece)(*given)
    computed = values[end.outputs[0]].reshape(-1)
    for kind in KNOWN:
        function = kind()
        if computed.shape == ROW.shape and torch.allclose(computed, function(ROW), rtol=1e-5, atol=1e-5):
            return function
    return None
