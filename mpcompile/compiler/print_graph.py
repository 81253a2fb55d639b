"""A Graph as text, for --dump-ir: a line a node or tensor, a layer with its terms, epilogue and results."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from mpcompile.ir import graph as g
from mpcompile.ir import layer as ir
from mpcompile.ir.formats import Buffer
from mpcompile.ir.grid import Grid
from mpcompile.ir.order import Order


def graph_text(
    graph: g.Graph,
    buffers: Mapping[str, list[Buffer]] | None = None,
    families: Mapping[str, Mapping[tuple[int, int], str]] | None = None,
) -> str:
    """`buffers` (tensor → its stored forms) and `families` (layer → (term, part) → family) are shown where given."""
    lines = [f"# {graph.source or 'graph'}: {len(graph.nodes)} nodes, batch {graph.batch or 'free'}"]
    lines += [f"input   {_tensor(graph, t, buffers)}" for t in graph.inputs]
    for node in graph.nodes:
        lines += ["", *_node(graph, node, buffers, (families or {}).get(node.name, {}))]
    lines += [""] + [f"output  {_tensor(graph, t, buffers)}" for t in graph.outputs]
    return "\n".join(lines) + "\n"


def grid_text(grid: Grid) -> str:
    """For example "2 planes -1..1 step 2"."""
    step = "" if grid.step == 1 else f" step {grid.step}"
    return f"{grid.planes} plane{'s' * (grid.planes > 1)} {grid.lo}..{grid.hi}{step}"


def part_text(part: ir.ContractPart) -> str:
    """For example "conv 64x3x3 -> 64, weights 1 plane -1..1 step 2"."""
    o, c, kh, kw = part.q.shape
    extras = [f"stride {_pair(part.strides)}"] if part.strides != (1, 1) else []
    extras += [f"pads {part.pads}"] if any(part.pads) else []
    extras += [f"dilation {_pair(part.dilations)}"] if part.dilations != (1, 1) else []
    extras += [f"groups {part.groups}"] if part.groups > 1 else []
    return ", ".join([f"conv {c}x{kh}x{kw} -> {o}", f"weights {grid_text(part.grid)}", *extras])


def _tensor(graph: g.Graph, name: str, buffers: Mapping[str, list[Buffer]] | None) -> str:
    kind = graph.types[name]
    text = f"{name} {list(kind.shape)}"
    if kind.quantizer:
        q = kind.quantizer
        text += f" {grid_text(q.grid)} scale {q.scale:.6g} ({q.rounding}{'' if q.zero_first else ', zero last'})"
    if buffers is not None:
        text += "  as " + ", ".join(_buffer(b) for b in buffers.get(name, []))
    return text


def _buffer(b: Buffer) -> str:
    halo = f" halo {b.halo}" if any(b.halo) else ""
    return f"{b.format}{f'({b.beside})' if b.beside else ''} {b.dtype}{list(b.buffer_shape)}{halo}"


def _node(graph: g.Graph, node: g.Node, buffers, families: Mapping[tuple[int, int], str]) -> list[str]:
    head = f"{node.op} {node.name}({', '.join(node.inputs)})"
    body = _layer(node, families) if isinstance(node, ir.Layer) else [f"  {d}" for d in [_details(node)] if d]
    return [head, *body, *(f"  -> {_tensor(graph, t, buffers)}" for t in node.outputs)]


def _details(node: g.Node) -> str:
    match node:
        case g.Conv() | g.Dense():
            scale = _array(node.weight.scale)
            text = f"weights {list(node.weight.q.shape)} {grid_text(node.weight.grid)} scale {scale}"
            if isinstance(node, g.Conv):
                text += f", strides {node.strides} pads {node.pads} dilations {node.dilations} groups {node.groups}"
            return text + ("" if node.bias is None else f", bias {_array(node.bias)}")
        case g.Affine():
            return f"{_array(node.a)} * x + {_array(node.b)}"
        case g.Clip():
            return f"{node.lo} .. {node.hi}"
        case g.PRelu():
            return f"slope {_array(node.slope)}"
        case g.Table():
            return f"values {_array(node.values)}"
        case g.Smooth():
            return " ".join([node.function, *(f"{p:g}" for p in node.parameters)])
        case g.Interpolate():
            return f"to {node.lines.size} lines, {node.columns.size} columns"
        case g.View():
            return _along(node.along)
        case g.Rearrange():
            return f"{_order(node.order)} to {list(node.whole)}, {_along(node.along)}"
        case g.Pooling():
            return f"{node.kind} {node.kernel} strides {node.strides} pads {node.pads}"
        case g.Reshape():
            return f"to {list(node.shape)}"
        case g.Transpose():
            return f"axes {list(node.perm)}"
        case g.FloatOp():
            return f"TVM's {node.op_type}"
    return ""


def _layer(node: ir.Layer, families: Mapping[tuple[int, int], str]) -> list[str]:
    lines = [f"  of {', '.join(node.source)}"] if node.source else []
    lines.append(f"  shape {list(node.shape)}")
    for i, term in enumerate(node.terms):
        lines += [f"  t{i} = {text}" for text in _term(term, i, families)]
    lines += [f"  %{i} = {_instr(instr)}" for i, instr in enumerate(node.epilogue)]
    lines += [
        f"  {r.name} = %{r.value}" + (f" on {grid_text(r.quantizer.grid)}" if r.quantizer else " as float32")
        for r in node.results
    ]
    return lines


def _term(term: ir.Term, index: int, families: Mapping[tuple[int, int], str]) -> list[str]:
    match term:
        case ir.ContractTerm():
            return [
                f"{'+ ' * (n > 0)}{part_text(part)}, of {part.input}"
                + (f"  [{families[index, n]}]" if (index, n) in families else "")
                for n, part in enumerate(term.parts)
            ]
        case ir.PoolTerm():
            return [f"{term.kind} {_pair(term.kernel)} of {term.input}, stride {_pair(term.strides)}, pads {term.pads}"]
        case ir.RearrangeTerm():
            return [f"{term.input} {_order(term.order)} to {list(term.whole)}, {_along(term.along)}"]
        case ir.InterpolateTerm():
            return [f"{term.input} to {term.lines.size} lines, {term.columns.size} columns, scale {term.scale:g}"]
    return [term.input if term.along is None else f"{term.input} {_along(term.along)}"]


def _instr(instr: ir.Instr) -> str:
    match instr:
        case ir.Load():
            return f"float32(t{instr.term})"
        case ir.Fma():
            b = f"%{instr.b}" if isinstance(instr.b, int) else _array(instr.b)
            return f"fma(%{instr.x}, {_array(instr.a)}, {b})"
        case ir.Plus():
            return f"%{instr.x} + %{instr.y}"
        case ir.Times():
            return f"%{instr.x} * %{instr.y}"
        case ir.Largest():
            return f"max(%{instr.x}, %{instr.y})"
        case ir.Smallest():
            return f"min(%{instr.x}, %{instr.y})"
        case ir.Apply():
            return f"{instr.function}({', '.join([f'%{instr.x}', *(f'{p:g}' for p in instr.parameters)])})"
        case ir.LookUp():
            return f"{_array(instr.values)} at level %{instr.level}"
        case ir.Divide():
            return f"%{instr.x} / {_array(instr.s)}"
        case ir.Clamp():
            return f"clamp(%{instr.x}, {instr.lo:g}, {instr.hi:g})"
        case ir.Slope():
            return f"fma(min(%{instr.x}, 0), {_array(instr.slope)}, max(%{instr.x}, 0))"
        case ir.Round():
            return f"level(%{instr.x}, {instr.rounding}, {instr.lo} .. {instr.hi})"
        case ir.Value():
            return f"float32(value of level %{instr.level} on {grid_text(instr.grid)})"
    raise TypeError(f"{type(instr).__name__} is no epilogue instruction")


def _along(along: tuple[g.Picked, ...]) -> str:
    """For example "[64 from 64, 20/2, 20/2]": channels 64 to 127, each line and column twice."""
    return f"[{', '.join(map(_axis, along))}]"


def _axis(a: g.Picked) -> str:
    if isinstance(a, g.Listed):
        return f"{a.size} as listed"
    return (
        f"{a.size}{f' from {a.start}' if a.start else ''}{f' by {a.step}' if a.step != 1 else ''}"
        f"{f'/{a.repeat}' if a.repeat > 1 else ''}"
    )


def _array(a: np.ndarray) -> str:
    a = np.asarray(a)
    return f"{a.flat[0]:.6g}" if a.size == 1 else f"[{a.size}: {a.flat[0]:.6g} .. {a.flat[-1]:.6g}]"


def _pair(p: tuple[int, int]) -> str:
    return f"{p[0]}x{p[1]}"


def _order(order: Order) -> str:
    """For example "by [2/12, 3/1, 4/3]": digits of elements' numbers, each with its step in the input."""
    return f"by [{', '.join(f'{size}/{stride}' for size, stride in order.digits)}]"
