"""What a board's cost model expects of a network's layers, as a latency table: for boards that nobody has at hand.

Cycles of contractions are those of the kernel families' cost models, by which `compile` chooses; of what stands beside them
(epilogues, stored forms, pools) those by which formats are chosen. One core; a cycle is a second over the board's clock.
What it says of two choices of bits is worth more than what it says of one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mpcompile.compiler.passes.base import apply_all
from mpcompile.compiler.passes.choose_formats import ChooseFormats
from mpcompile.compiler.passes.to_layers import TO_LAYERS
from mpcompile.frontend import load
from mpcompile.ir.bits import BitCandidates
from mpcompile.ir.graph import Graph
from mpcompile.ir.grid import Grid
from mpcompile.ir.layer import ContractPart, ContractTerm, Layer
from mpcompile.kernels.families import families
from mpcompile.kernels.select import candidates
from mpcompile.latency.cache import Cache
from mpcompile.latency.key import key_of
from mpcompile.latency.measure import Measurement, Timing
from mpcompile.latency.profile import build_table
from mpcompile.latency.progress import Progress
from mpcompile.latency.subgraph import Subgraph
from mpcompile.latency.table import LatencyTable
from mpcompile.targets import Target
from mpcompile.temporary import temporary_folder

CLOCKS = {"rpi3b": 1.2e9, "rpi3b-32": 1.2e9, "rpi4b": 1.5e9, "rpi4b-32": 1.5e9, "rpi5": 2.4e9, "zen4": 3.7e9}
"""Hz of boards that ship. Of others ASSUMED, which the table says."""
ASSUMED = 1e9
WIDEST = 512
"""Bits of the vectors that a board's costs of storing are told for."""
STEP = 0.025
"""Cycles that an instruction of the epilogue takes for a value, in vectors so wide."""
REFERENCE = 1.0
MODELLED = "modelled"
"""The key in a table's `measured_on` that says so."""


@dataclass(frozen=True)
class ModelledKernel:
    subgraph: Subgraph
    identity: str


class ModelledWorkbench:
    """A latency.workbench.Workbench that expects where others measure."""

    devices_at_once, at_once, slower = 1, 256, 2.0
    families = {f.name: f for f in families()}

    def __init__(self, target: Target):
        self.target, self.clock = target, CLOCKS.get(target.name, ASSUMED)
        self.narrower = WIDEST / target.vector_bits
        assumed = "" if target.name in CLOCKS else ", which was assumed"
        self.identity: Mapping[str, str] = {
            "target": target.name,
            "cpu": target.description,
            "threads": "1",
            MODELLED: f"by the cost model of {target.name}, one core at {self.clock / 1e9:g} GHz{assumed}; not measured",
        }

    def known(self, reference: float) -> float:
        return min(reference, REFERENCE)

    def fuse(self, graph: Graph) -> Graph:
        return apply_all(graph, TO_LAYERS)

    def choose(self, fused: Graph) -> Mapping[str, Mapping[tuple[int, int], str]]:
        return ChooseFormats(self.target).apply(fused).families

    def candidates(self, part: ContractPart, grid: Grid, output: tuple[int, int]) -> Sequence[tuple[str, float]]:
        return candidates(part, grid, self.target, output)

    def lower(self, subgraph: Subgraph) -> ModelledKernel:
        return ModelledKernel(subgraph, key_of(subgraph, self.identity))

    def time(self, batches: Sequence[Sequence[ModelledKernel]], done: Callable[[int, Measurement], None]) -> None:
        for at, batch in enumerate(batches):
            seconds = [self._cycles(kernel.subgraph) / self.clock for kernel in batch]
            found = {str(i): Timing(str(i), s, s, s, 1) for i, s in enumerate(seconds)}
            done(at, Measurement(found, REFERENCE, REFERENCE, 1, 0.0))

    def _cycles(self, subgraph: Subgraph) -> float:
        graph = subgraph.graph
        layer = next(n for n in graph.nodes if isinstance(n, Layer) and n.name == subgraph.layer)
        size = layer.shape[0] * layer.shape[1] * layer.shape[2]
        storage, chosen = self.target.storage, subgraph.families.get(layer.name, {})
        cycles, beside = 0.0, STEP * len(layer.epilogue) * size
        for i, term in enumerate(layer.terms):
            if isinstance(term, ContractTerm):
                for j, part in enumerate(term.parts):
                    grid = graph.types[part.input].grid
                    assert grid is not None, "what a contraction reads has a grid"
                    cycles += dict(self.candidates(part, grid, layer.shape[1:]))[chosen[i, j]]
            elif grid := graph.types[term.input].grid:
                beside += size * min(storage.read["codes"], storage.read["planes"] * grid.planes)
        for t in layer.outputs:
            grid = graph.types[t].grid
            for form in subgraph.reads[t] & {"codes", "planes"}:
                beside += size * storage.write[form] * (grid.planes if grid and form == "planes" else 1)
        return cycles + self.narrower * beside


def modelled_table(model: Path, target: Target, bits: BitCandidates, progress: Progress | None = None) -> LatencyTable:
    """The whole table of a quantized model, as the board's cost model expects it; `measured_on` says so."""
    with temporary_folder() as folder:
        bench = ModelledWorkbench(target)
        return build_table(load(model), bits, bench, Cache(folder / "cells.jsonl"), progress=progress)
