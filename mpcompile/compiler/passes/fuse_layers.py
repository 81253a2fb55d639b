"""Real-valued operators → layers: integer terms, a float32 epilogue, one or several outputs (layer.py).

One mechanism does it all: every tensor is either *stored*, because something must read it from memory or several things
read it, or *lazy*, an expression inside the layer that needs it. So a convolution takes along all that follows it up to
the next stored tensor; a downsample convolution, read by an add alone, is computed in the layer of that add; the skip,
read by several, is a ViewTerm there.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from mpcompile.compiler.passes.base import Pass, fresh, with_nodes
from mpcompile.compiler.passes.dataflow import BINARY, FUSED, MOST_FUSED, UNARY, Dataflow, as_map
from mpcompile.compiler.passes.epilogue import EpilogueBuilder, Lazy, OnGrid, Real
from mpcompile.compiler.passes.restore_codes import nearest
from mpcompile.compiler.passes.terms import contract_terms, map_along, pool_term, window
from mpcompile.errors import ModelError
from mpcompile.ir.graph import (
    Add,
    Affine,
    Along,
    Clip,
    Conv,
    Dense,
    Graph,
    Interpolate,
    Larger,
    Mul,
    Node,
    Pooling,
    PRelu,
    Quantize,
    Rearrange,
    Smaller,
    Smooth,
    Table,
    TensorType,
    Transpose,
    View,
)
from mpcompile.ir.layer import ContractTerm, InterpolateTerm, Layer, Output, RearrangeTerm, ViewTerm
from mpcompile.ir.order import Order

CODES, REAL = "codes", "real"
MOST_BETWEEN = 32
"""Operators by element between a tensor and the one where all that is made of it comes together."""
FEW_CHANNELS = 4
"""Of so few a layer writes lanes of pixels, and turning them saves nothing."""


@dataclass(frozen=True)
class FuseLayers(Pass):
    """Before: a graph of real-valued operators, concats only where contractions or operators in float read them.

    After: nodes are Layer, FloatOp, Reshape, Transpose and Concat. Layers read stored tensors and write stored tensors:
    codes (their type has the quantizer) or float32; every other node reads and writes float32. Nodes that no output
    needs are gone. A tensor keeps its name; one that is needed both as codes and in float32 has its codes under the
    name with ".codes" appended.
    """

    name: ClassVar[str] = "fuse_layers"

    def apply(self, graph: Graph) -> Graph:
        return _Fuser(graph).run()


class _Fuser:
    def __init__(self, graph: Graph):
        self.graph, self.flow = graph, Dataflow(graph)
        self.turned = _turned(graph, self.flow)
        self.index = {id(n): i for i, n in enumerate(graph.nodes)}
        self.as_codes: set[str] = set()  # tensors that contractions and pools read as codes
        self.as_real: set[str] = set(graph.outputs)  # tensors that must lie in memory as float32
        self.readers: dict[str, set[int]] = {}  # tensor → layer operators that read it elementwise
        self._scan()
        self.inner = {t for t in self.readers if self._comes_together(t)}
        self.cut: set[str] = set()  # tensors at which a long chain ends, and a layer of its own begins
        self._cut()
        self.code_name: dict[str, str] = {}
        self._name_codes()
        self.needed: set[tuple[str, str]] = {(t, REAL) for t in graph.outputs}
        self.names = {n.name for n in graph.nodes if not isinstance(n, FUSED)}

    # -- which tensors are stored ----------------------------------------------------------------
    def _scan(self) -> None:
        """Walks back from the outputs, so that operators which nothing needs ask for nothing."""
        flow, live = self.flow, set(self.graph.outputs)
        for node in reversed(self.graph.nodes):
            if not live & set(node.outputs):
                continue
            if isinstance(node, (Conv, Dense)):
                reads = flow.slices(node)
                self.as_codes.update(reads)
            elif self.fused(node.outputs[0]):
                reads = [flow.origin(t) for t in node.inputs]
                for t in reads:
                    if node.outputs[0] in self.turned or not isinstance(node, (Interpolate, Pooling, View, Rearrange)):
                        self.readers.setdefault(t, set()).add(id(node))
                    elif flow.quantizer(t):
                        self.as_codes.add(t)
                    else:
                        self.as_real.add(t)
            else:
                reads = node.inputs
                self.as_real.update(reads)
            live.update(reads)

    def _comes_together(self, tensor: str) -> bool:
        """Whether all that operators by element make of `tensor` ends in one of them, and nothing between is stored: it is
        computed once in that one's layer (x·sigmoid(x))."""
        ahead = {self.index[i] for i in self.readers[tensor]}
        if len(ahead) < 2 or tensor in self.as_codes or tensor in self.as_real:
            return False
        for _ in range(MOST_BETWEEN):
            if len(ahead) == 1:
                return True
            first = min(ahead)
            made = self.graph.nodes[first].outputs[0]
            if made in self.as_codes or made in self.as_real or made in self.turned or not self.readers.get(made):
                return False
            ahead = ahead - {first} | {self.index[i] for i in self.readers[made]}
        return False

    def _cut(self) -> None:
        """Has every MOST_FUSED-th tensor of a chain of operators stored."""
        depth: dict[str, int] = {}
        for node in self.graph.nodes:
            if not isinstance(node, (*UNARY, *BINARY)):
                continue
            sources = [self.flow.origin(t) for t in node.inputs]
            inside = [t for t in sources if t not in self.cut and (isinstance(node, UNARY) or not self.stored(t))]
            tensor = node.outputs[0]
            depth[tensor] = 1 + max((depth.get(t, 0) for t in inside), default=0)
            if depth[tensor] == MOST_FUSED:
                self.cut.add(tensor)
                (self.as_codes if self.flow.quantizer(tensor) else self.as_real).add(tensor)

    def stored(self, tensor: str) -> bool:
        return (
            tensor in self.as_codes
            or tensor in self.as_real
            or (len(self.readers.get(tensor, ())) > 1 and tensor not in self.inner)
            or not self.fused(tensor)
        )

    def fused(self, tensor: str) -> bool:
        """Whether a layer computes it."""
        return isinstance(self.flow.producer.get(tensor), FUSED) or tensor in self.turned

    def _name_codes(self) -> None:
        """Names the codes of every tensor that is stored as codes."""
        taken = set(self.graph.types)
        for node in self.graph.nodes:
            for t in node.outputs:
                if self.fused(t) and self.stored(t) and self.flow.quantizer(t):
                    if t not in self.as_real:
                        self.code_name[t] = t
                    elif t in self.as_codes:
                        self.code_name[t] = fresh(taken, t + ".codes")
                        taken.add(self.code_name[t])

    # -- which layer computes a stored tensor ----------------------------------------------------
    def home(self, tensor: str) -> str:
        """The layer, named by the tensor it starts from: that of the stored tensor which it is a chain of unary
        operators over, if there is one and no long chain is cut there, else its own. A chain over a tensor that no
        layer computes is a layer over a view of it."""
        node = self.flow.producer[tensor]
        while isinstance(node, UNARY) or node.outputs[0] in self.turned:
            source = self.flow.origin(node.inputs[0])
            if source in self.cut:
                return tensor
            if self.stored(source):
                return self.home(source) if self.fused(source) else source
            node = self.flow.producer[source]
        return tensor

    # -- the graph, from its end to its beginning ------------------------------------------------
    def run(self) -> Graph:
        members: dict[str, list[str]] = {}
        first: dict[int, str] = {}  # index of the node at which a layer stands → the layer
        for i, node in enumerate(self.graph.nodes):
            for t in node.outputs:
                if self.fused(t) and self.stored(t):
                    home = self.home(t)
                    if home not in members:
                        first[i] = home
                    members.setdefault(home, []).append(t)
        nodes: list[Node] = []
        for i in reversed(range(len(self.graph.nodes))):
            node = self.graph.nodes[i]
            if i in first:
                if layer := self._layer(members[first[i]]):
                    nodes.append(layer)
            elif not any(self.fused(t) for t in node.outputs) and any((t, REAL) in self.needed for t in node.outputs):
                self.needed.update((t, REAL) for t in node.inputs)
                nodes.append(node)
        nodes.reverse()
        return with_nodes(self.graph, nodes, self._types(nodes))

    def _types(self, nodes: list[Node]) -> dict[str, TensorType]:
        """Layers' codes have their quantizer; all else is float32."""
        types = {t: TensorType(ty.shape) for t, ty in self.graph.types.items()}
        source = {name: t for t, name in self.code_name.items()}
        for node in nodes:
            for r in node.results if isinstance(node, Layer) else ():
                types[r.name] = TensorType(self.graph.types[source.get(r.name, r.name)].shape, r.quantizer)
        return types

    def _layer(self, members: list[str]) -> Layer | None:
        """The layer that computes `members`; None where nothing needs any of them."""
        wanted = [(t, form) for t in members for form in (CODES, REAL) if (t, form) in self.needed]
        if not wanted:
            return None
        build = _LayerBuilder(self, set(members))
        results = [build.output(t, form) for t, form in wanted]
        work = [n for n in build.nodes if isinstance(n, (Conv, Dense, Interpolate, Pooling, View, Rearrange))]
        lead = (work or build.nodes)[0]
        name = fresh(self.names, lead.name)
        self.names.add(name)
        shape = self.flow.map_of(self.turned.get(members[0], members[0]), build.nodes[-1])
        inputs = list(dict.fromkeys(t for term in build.epilogue.terms for t in _inputs(term)))
        return Layer(
            name,
            inputs,
            [r.name for r in results],
            shape,
            build.epilogue.terms,
            build.epilogue.instrs,
            results,
            [n.name for n in sorted(build.nodes, key=lambda n: self.index[id(n)])],
        )


def _turned(graph: Graph, flow: Dataflow) -> dict[str, str]:
    """Tensors that are what a layer computes with its channels last → that; no layer reads them."""
    read = {flow.origin(t) for n in graph.nodes if isinstance(n, FUSED) for t in n.inputs}
    read |= {t for n in graph.nodes if isinstance(n, (Conv, Dense)) for t in flow.slices(n)}
    found = {}
    for node in graph.nodes:
        if not isinstance(node, (Transpose, Rearrange)) or node.outputs[0] in read:
            continue
        source = flow.origin(node.inputs[0])
        if (
            isinstance(flow.producer.get(source), FUSED)
            and source not in found
            and _to_last(node, graph.types[source].shape)
        ):
            found[node.outputs[0]] = source
    return found


def _to_last(node: Transpose | Rearrange, shape: tuple[int, ...]) -> bool:
    """Whether it puts the channels of a tensor of `shape`, more than a few, behind the other axes."""
    c, h, w = as_map(shape) or (0, 0, 0)
    if isinstance(node, Transpose):
        return c > FEW_CHANNELS and node.perm in ((1, 0), (1, 2, 0))
    last = node.whole in ((h, w, c), *([(w, c)] if h == 1 else []))
    turned = node.order == Order(((h * w, 1), (c, h * w)))
    return c > FEW_CHANNELS and turned and last and node.along == tuple(map(Along, node.whole))


def _inputs(term) -> list[str]:
    return [p.input for p in term.parts] if isinstance(term, ContractTerm) else [term.input]


class _LayerBuilder:
    """Evaluates tensors inside one layer. `members`: the stored tensors that it computes itself."""

    def __init__(self, fuser: _Fuser, members: set[str]):
        self.fuser, self.flow, self.members = fuser, fuser.flow, members
        self.epilogue = EpilogueBuilder()
        self.nodes: list[Node] = []
        self._values: dict[str, Lazy] = {}

    def output(self, tensor: str, form: str) -> Output:
        value = self.value(tensor)
        self._at(self.flow.producer[tensor])
        if form == REAL:
            return Output(tensor, self.epilogue.float_id(value), channels_last=tensor in self.fuser.turned)
        value = self._on_grid(tensor, value)
        return Output(self.fuser.code_name[tensor], self.epilogue.level_id(value), value.quantizer)

    def _on_grid(self, tensor: str, value: Lazy) -> OnGrid:
        """The value of a tensor that is known to lie on a grid, as such."""
        if not isinstance(value, OnGrid):
            value = self.epilogue.quantize(value, nearest(self.flow.on_grid(tensor)))
            self._values[self.flow.origin(tensor)] = value
        return value

    def value(self, tensor: str) -> Lazy:
        """The tensor, computed here unless another layer stores it."""
        tensor = self.flow.origin(tensor)
        if tensor not in self._values:
            inside = tensor in self.members or not self.fuser.stored(tensor)
            self._values[tensor] = self._compute(tensor) if inside else self._view(tensor)
        return self._values[tensor]

    def _read(self, tensor: str) -> str:
        """The stored tensor's name, as codes if it is stored so."""
        form = CODES if tensor in self.fuser.code_name else REAL
        self.fuser.needed.add((tensor, form))
        return self.fuser.code_name.get(tensor, tensor)

    def _view(self, tensor: str) -> Lazy:
        return self._stored_value(tensor, self.epilogue.load(ViewTerm(self._read(tensor))))

    def _stored_value(self, tensor: str, at: int) -> Lazy:
        if tensor in self.fuser.code_name:
            return OnGrid(self.flow.on_grid(tensor), q=at)
        return Real(at, np.ones(1), np.zeros(1), True)

    def _compute(self, tensor: str) -> Lazy:
        node, build = self.flow.producer[tensor], self.epilogue
        self.flow.map_of(tensor, node)
        if tensor in self.fuser.turned:
            value = self.value(node.inputs[0])
            self.nodes.append(node)
            return value
        read = [self.value(t) for t in node.inputs] if isinstance(node, (*UNARY, *BINARY)) else []
        self.nodes.append(node)
        self._at(node)
        match node:
            case Conv() | Dense():
                terms = contract_terms(node, self.flow)
                for part in (p for term, _ in terms for p in term.parts):
                    part.input = self._read(part.input)
                return build.contraction(terms, node.weight.scale, node.bias)
            case Pooling():
                return self._pool(node)
            case View():
                source = self.flow.origin(node.inputs[0])
                return self._stored_value(source, build.load(ViewTerm(self._read(source), map_along(node.along))))
            case Rearrange(order=order, along=along):
                source, whole = self.flow.origin(node.inputs[0]), as_map(node.whole)
                assert whole is not None, "what is rearranged is a map"
                term = RearrangeTerm(self._read(source), order, whole, map_along(along))
                return self._stored_value(source, build.load(term))
            case Interpolate(lines=lines, columns=columns):
                source = self.flow.origin(node.inputs[0])
                scale = self.flow.on_grid(source).scale
                term = InterpolateTerm(self._read(source), scale, lines, columns)
                return Real(build.load(term), np.ones(1), np.zeros(1), True)
            case Affine():
                return build.affine(read[0], node.a, node.b)
            case Clip():
                return build.clip(read[0], node.lo, node.hi)
            case PRelu():
                return build.prelu(read[0], node.slope)
            case Quantize():
                return build.quantize(read[0], node.quantizer)
            case Table():
                return build.table(self._on_grid(node.inputs[0], read[0]), node.values, node.quantizer)
            case Add():
                return build.add(read[0], read[1])
            case Mul():
                return build.mul(read[0], read[1])
            case Larger() | Smaller():
                return build.extreme(read[0], read[1], isinstance(node, Larger))
            case Smooth(function=function, parameters=parameters):
                return build.smooth(read[0], function, parameters)
        raise ModelError(f"node {node.name} ({node.op}) is no operator of a layer")

    def _at(self, node: Node) -> None:
        """Messages name `node` from here on."""
        self.epilogue.where = f"{node.name} ({node.op})"

    def _pool(self, node: Pooling) -> Lazy:
        tensor = self.flow.origin(node.inputs[0])
        self.flow.map_of(tensor, node)
        at = self.epilogue.load(pool_term(node, self._read(tensor)))
        value = self._stored_value(tensor, at)
        if node.kind == "max":
            return value
        if isinstance(value, OnGrid):
            return Real(at, np.array([value.quantizer.scale / window(node)]), np.zeros(1), False)
        return Real(self.epilogue.divide(at, window(node)), np.ones(1), np.zeros(1), True)
