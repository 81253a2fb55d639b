"""A workbench whose device is a formula: what every layer of any network takes is known exactly."""

from __future__ import annotations

import time
from dataclasses import dataclass

from mpcompile.compiler.passes.base import apply_all
from mpcompile.compiler.passes.to_layers import TO_LAYERS
from mpcompile.ir.layer import ContractTerm, Layer
from mpcompile.kernels.families import families
from mpcompile.latency.key import key_of
from mpcompile.latency.measure import Measurement, Timing
from mpcompile.latency.subgraph import Subgraph

POPCOUNT, DOT = 1.0, 5.3
REFERENCE = 1e-5
"""Seconds of the reference kernel."""


@dataclass(frozen=True)
class SimulatedKernel:
    subgraph: Subgraph
    identity: str


class Simulated:
    """popcount costs its bit-MACs, dot DOT for each MAC; a step of the epilogue 10, a written code 3 and a written
    plane 2, pools and views their input's bits. All in nanoseconds for each output value."""

    identity = {"cpu": "a formula"}
    devices_at_once, at_once, slower = 1, 24, 1.3
    families = {f.name: f for f in families()}

    def __init__(self, pause: float = 0.0):
        self.timed, self.pause = 0, pause

    def known(self, reference):
        return min(reference, REFERENCE)

    def fuse(self, graph):
        return apply_all(graph, TO_LAYERS)

    def choose(self, fused):
        return {
            n.name: {
                (i, j): self.candidates(p, fused.types[p.input].grid, n.shape[1:])[0][0]
                for i, t in enumerate(n.terms)
                if isinstance(t, ContractTerm)
                for j, p in enumerate(t.parts)
            }
            for n in fused.nodes
            if isinstance(n, Layer)
        }

    def candidates(self, part, grid, output):
        depth = part.q[0].size * output[0] * output[1] * part.q.shape[0]
        costs = {"popcount": POPCOUNT * part.grid.planes * grid.planes * depth, "dot": DOT * depth}
        return sorted(costs.items(), key=lambda item: item[1])

    def lower(self, subgraph):
        return SimulatedKernel(subgraph, key_of(subgraph, {}))

    def time(self, batches, done):
        for at, batch in enumerate(batches):
            done(at, self.measure(batch))

    def measure(self, kernels, slow: float = 1.0) -> Measurement:
        """On a device that is so many times slower."""
        found = {}
        for i, kernel in enumerate(kernels):
            self.timed += 1
            time.sleep(self.pause)
            seconds = slow * self.kernel(kernel)
            found[str(i)] = Timing(str(i), seconds, seconds, seconds, 1)
        return Measurement(found, slow * REFERENCE, slow * REFERENCE, 1, 0.05)

    def kernel(self, kernel) -> float:
        """Seconds that it takes."""
        subgraph = kernel.subgraph
        layer = next(n for n in subgraph.graph.nodes if n.name == subgraph.layer)
        formats = dict(subgraph.reads.items())
        return self.layer(subgraph.graph, layer, subgraph.families[layer.name], formats)

    def layer(self, fused, layer, families, formats) -> float:
        """Seconds of a layer with these families, its outputs written in these formats."""
        size = layer.shape[0] * layer.shape[1] * layer.shape[2]
        total = 10.0 * len(layer.epilogue) * size
        for i, term in enumerate(layer.terms):
            if isinstance(term, ContractTerm):
                for j, part in enumerate(term.parts):
                    total += dict(self.candidates(part, fused.types[part.input].grid, layer.shape[1:]))[families[i, j]]
            elif grid := fused.types[term.input].grid:
                total += grid.planes * size
        for t in layer.outputs:
            planes = fused.types[t].grid.planes if fused.types[t].grid else 0
            total += size * (3 * ("codes" in formats[t]) + 2 * planes * ("planes" in formats[t]))
        return total * 1e-9

    def network(self, graph) -> float:
        """Seconds of the whole network, each contraction in its cheapest family."""
        return sum(self.layers(graph).values())

    def layers(self, graph) -> dict[str, float]:
        """The same, layer by layer."""
        fused = self.fuse(graph)
        families = self.choose(fused)
        layers = [n for n in fused.nodes if isinstance(n, Layer)]
        formats: dict[str, set[str]] = {t: set() for n in layers for t in n.outputs}
        for n in layers:
            for (i, j), name in families[n.name].items():
                formats[n.terms[i].parts[j].input].add(self.families[name].reads)
        return {n.name: self.layer(fused, n, families[n.name], formats) for n in layers}
