"""Conv, Dense and Pooling as terms of a layer: shapes made (C, H, W), weights split by slices, sums that fit int32."""

from __future__ import annotations

import numpy as np

from mpcompile.compiler.passes.dataflow import Dataflow
from mpcompile.errors import ModelError
from mpcompile.ir.graph import Along, Conv, Dense, Picked, Pooling, QuantizedWeight
from mpcompile.ir.grid import Grid, twos_complement
from mpcompile.ir.layer import ContractPart, ContractTerm, PoolTerm
from mpcompile.kernels.weights import dot_form


def contract_terms(node: Conv | Dense, flow: Dataflow) -> list[tuple[ContractTerm, float]]:
    """(term, scale of the activations that it reads): `node` without its bias is Σ weight.scale·scale·term, one term
    for each real scale among the slices it reads.

    Raises ModelError naming the node where its input is on no grid, where weights do not fit the input, or where a sum
    might not fit int32.
    """
    by_scale: dict[float, list[ContractPart]] = {}
    bound = np.zeros(node.weight.q.shape[0], np.int64)
    for tensor, q, grid, groups in _split_weights(node, flow.slices(node), flow):
        quantizer = flow.on_grid(tensor)
        bound += np.abs(q).sum((1, 2, 3)) * quantizer.grid.max_abs
        by_scale.setdefault(quantizer.scale, []).append(ContractPart(tensor, q, grid, *_geometry(node), groups))
    if bound.size and bound.max() >= 2**31:
        raise ModelError(
            f"node {node.name} ({node.op}) may sum up to {bound.max()}: accumulators are int32, "
            "fewer bits or fewer input channels would be accepted"
        )
    return [(ContractTerm(parts), scale) for scale, parts in by_scale.items()]


def _split_weights(node, slices: list[str], flow: Dataflow):
    """(tensor, q [O, C/groups, KH, KW], grid, groups) of each slice; a slice comes again where its weights are a
    sum."""
    weight: QuantizedWeight = node.weight
    q, groups = np.asarray(weight.q, np.int64), getattr(node, "groups", 1)
    for tensor in slices:
        if flow.quantizer(tensor) is None:
            raise ModelError(
                f"node {node.name} ({node.op}) has quantized weights, but its input {tensor} is not "
                "quantized: a quantizer in front of it would be accepted"
            )
    maps = [flow.map_of(t, node) for t in slices]
    if isinstance(node, Conv) and q.ndim == 3:
        q = q[:, :, None, :]
    widths = [c if isinstance(node, Conv) else c * h * w for c, h, w in maps]
    if sum(widths) != q.shape[1] * groups:
        raise ModelError(
            f"node {node.name} ({node.op}) has weights for {q.shape[1] * groups} inputs, and reads {sum(widths)}"
        )
    across = groups > 1 and len(slices) > 1
    ends = np.cumsum(widths)
    for summand, grid in _in_int8(q, weight.grid) if across else [(q, weight.grid)]:
        if across:
            summand, grid = ungrouped(summand, grid, groups)
        for tensor, start, end, shape in zip(slices, ends - widths, ends, maps):
            part = summand[:, start:end] if len(slices) > 1 else summand
            part = part if isinstance(node, Conv) else part.reshape(len(summand), *shape)
            yield tensor, np.ascontiguousarray(part), grid, 1 if across else groups


def _in_int8(q: np.ndarray, grid: Grid) -> list[tuple[np.ndarray, Grid]]:
    """Weights as a sum of weights inside -128..127."""
    if dot_form(grid) == (1, 0):
        return [(q, grid)]
    parts = []
    while not parts or q.any():
        parts.append((np.clip(q, -128, 127), twos_complement(8)))
        q = q - parts[-1][0]
    return parts


def ungrouped(q: np.ndarray, grid: Grid, groups: int) -> tuple[np.ndarray, Grid]:
    """The same kernel without groups: block-diagonal, on a grid inside −128..127 that has the 0 between the blocks.

    For a grouped convolution over slices whose borders do not meet the groups'.
    """
    o, c = q.shape[0] // groups, q.shape[1]
    dense = np.zeros((q.shape[0], c * groups, *q.shape[2:]), np.int64)
    for g in range(groups):
        dense[g * o : (g + 1) * o, g * c : (g + 1) * c] = q[g * o : (g + 1) * o]
    return dense, grid if grid.has_zero else twos_complement(max(grid.hi, ~grid.lo).bit_length() + 1)


def _geometry(node):
    """strides, pads (top, left, bottom, right) and dilations of two axes."""
    if isinstance(node, Dense):
        return (1, 1), (0, 0, 0, 0), (1, 1)
    return _pair(node.strides, 1), _pads(node.pads), _pair(node.dilations, 1)


def _pair(values, first: int) -> tuple[int, int]:
    """(h, w) of one or two axes' numbers; a sequence has a height of `first`."""
    h, w = (first, *values) if len(values) == 1 else values
    return int(h), int(w)


def _pads(pads) -> tuple[int, int, int, int]:
    (top, bottom), (left, right) = ((0, 0), *pads) if len(pads) == 1 else pads
    return int(top), int(left), int(bottom), int(right)


def pool_term(node: Pooling, tensor: str) -> PoolTerm:
    """`tensor` pooled as `node` says; an average as its sum: divide by `window(node)`."""
    kind = {"max": "max", "avg": "sum"}[node.kind]
    return PoolTerm(tensor, kind, _pair(node.kernel, 1), _pair(node.strides, 1), _pads(node.pads))


def map_along(along: tuple[Picked, ...]) -> tuple[Picked, Picked, Picked]:
    """What a View picks, of a map: a sequence has one line, a vector one pixel."""
    one = Along(1)
    channels, *rest = along
    lines, columns = {0: (one, one), 1: (one, *rest), 2: rest}[len(rest)]
    return channels, lines, columns


def window(node: Pooling) -> int:
    return int(np.prod(node.kernel))
