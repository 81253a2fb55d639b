"""Compiles and times, for the room that knows neither: the latency table's `Workbench` over mpcompile's own pipeline;
`profile`."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from mpcompile import __version__, cpu
from mpcompile.graph import Graph
from mpcompile.grid import Grid
from mpcompile.latency.cache import Cache
from mpcompile.latency.cut import HEAD, Cut, Families
from mpcompile.latency.in_place import in_place, stirrer
from mpcompile.latency.measure import Measurement, Timing, measure
from mpcompile.latency.profile import build_table
from mpcompile.latency.table import LatencyTable, parse_bits
from mpcompile.layer import ContractPart, ContractTerm, Layer
from mpcompile.runtime import Bundle, open_bundle
from mpcompile.runtime.archive import tvm_version
from mpcompile.targets import Target, load_target

WHOLE = "whole network"


@dataclass(frozen=True)
class NetworkProfile:
    """A compiled network, timed layer by layer and as a whole. `rows` are the manifest's layers, in order."""

    model: str
    measured_on: dict[str, str]
    rows: list[dict]
    layers: dict[str, Timing]
    whole: Timing
    note: str

    def to_json(self) -> dict:
        return {
            "model": self.model,
            "measured_on": self.measured_on,
            "unit": "seconds",
            "whole": self.whole.to_json(),
            "layers": [
                {**row, "time": self.layers[row["name"]].to_json()} for row in self.rows if row["name"] in self.layers
            ],
            "note": self.note,
        }


def profile(model: str | os.PathLike | Graph, target: str | os.PathLike | Target = "native", *, bits: str | None = None,
            cache: str | os.PathLike | None = None, threads: int | None = None, rounds: int = 21,
            progress: Callable[[int, int], None] | None = None) -> NetworkProfile | LatencyTable:
    """How long each layer of `model` takes on this machine, compiled for `target`.

    With `bits` ("w1234a1248") the whole latency table: every layer at every pair of bits. What is measured goes to the
    file `cache` at once, and is not measured again. Without, each layer as it is. Raises MpError's subclasses.
    """
    from mpcompile.frontend import load

    w_bits, a_bits = parse_bits(bits) if bits is not None else ([], [])
    board = target if isinstance(target, Target) else load_target(target)
    graph = model if isinstance(model, Graph) else load(Path(model))
    bench = LocalWorkbench(board, threads, rounds).among(graph)
    if bits is None:
        return bench.profile(graph, progress)
    with tempfile.TemporaryDirectory(prefix="mpcompile-") as folder:
        kept = Cache(cache if cache is not None else Path(folder) / "cells.jsonl")
        table = build_table(graph, w_bits, a_bits, bench, kept, progress=progress)
    table.beside = bench.whole(graph).seconds - table.predict()
    return table


class LocalWorkbench:
    """Builds for `target` and times on this machine with `threads` threads (None: its physical cores)."""

    def __init__(self, target: Target, threads: int | None = None, rounds: int = 21, min_time: float = 0.001):
        from mpcompile.runtime.threads import resolve

        self.target, self.threads = target, resolve(threads)
        self.rounds, self.min_time = rounds, min_time
        built = json.dumps(target.to_json(), sort_keys=True)
        self.identity = {
            "target": target.name,
            "target_sha": hashlib.sha256(built.encode()).hexdigest()[:16],
            "cpu": cpu.name(),
            "threads": str(self.threads),
            "mpcompile": __version__,
            "kernels": _code(),
            "tvm": tvm_version(),
        }
        self._stir = stirrer(0)

    def among(self, graph: Graph) -> LocalWorkbench:
        """This workbench, for layers of `graph`.

        Between two runs of one, the caches see as many bytes as its weights have, up to twice what the second level
        holds.
        """
        fused = self.fuse(graph)
        families = self.choose(fused)
        nbytes = sum(_weight_bytes(layer, families[layer.name]) for layer in fused.nodes if isinstance(layer, Layer))
        nbytes = min(nbytes, 2048 * self.target.l2_kib) // 65536 * 65536
        self._stir = stirrer(nbytes)
        self.identity["stirred"] = str(nbytes)
        return self

    # -- what the latency table asks for -------------------------------------------------------------
    def fuse(self, graph: Graph) -> Graph:
        from mpcompile.compiler.passes.base import apply_all
        from mpcompile.compiler.passes.to_layers import TO_LAYERS

        return apply_all(graph, TO_LAYERS)

    def choose(self, fused: Graph) -> Families:
        from mpcompile.compiler.passes.choose_formats import ChooseFormats

        return ChooseFormats(self.target).apply(fused).families

    def candidates(self, part: ContractPart, grid: Grid, output: tuple[int, int]) -> Sequence[tuple[str, float]]:
        from mpcompile.kernels.select import candidates

        return candidates(part, grid, self.target, output)

    def time(self, variants: Sequence[Cut]) -> list[Timing]:
        with tempfile.TemporaryDirectory(prefix="mpcompile-") as folder:
            bundles, timers = [], {}
            try:
                for i, variant in enumerate(variants):
                    bundles.append(self._open(variant.graph, Path(folder) / f"{i}.mpc", _forced(variant)))
                    layers = bundles[-1].layer_timers()
                    before = [timer for name, timer in layers.items() if name.endswith(HEAD)]
                    timers[str(i)] = in_place(layers[variant.layer], before, self._stir)
                found = measure(timers, rounds=self.rounds, min_time=self.min_time)
            finally:
                for bundle in bundles:
                    bundle.close()
        return [found[str(i)] for i in range(len(variants))]

    # -- whole networks ------------------------------------------------------------------------------
    def profile(self, graph: Graph, progress: Callable[[int, int], None] | None = None) -> NetworkProfile:
        """Every layer of the network, and the network, in one interleaved measurement."""
        with self.opened(graph) as bundle:
            return self.profile_bundle(bundle, graph.source, progress)

    def profile_bundle(self, bundle: Bundle, source: str, progress: Callable[[int, int], None] | None = None
                       ) -> NetworkProfile:
        """The same of a bundle that is open; `source` is the model's name."""
        layers = bundle.layer_timers()
        before = [[], *([timer] for timer in layers.values())]
        timers = {WHOLE: bundle.timer()}
        timers |= {name: in_place(layers[name], before[i], self._stir) for i, name in enumerate(layers)}
        found: Measurement = measure(timers, rounds=self.rounds, min_time=self.min_time, progress=progress)
        layers = {name: t for name, t in found.timings.items() if name != WHOLE}
        return NetworkProfile(source, dict(self.identity), bundle.layers, layers, found[WHOLE], found.note())

    def whole(self, graph: Graph) -> Timing:
        """The network from end to end."""
        with self.opened(graph) as bundle:
            return measure({WHOLE: bundle.timer()}, rounds=self.rounds, min_time=self.min_time)[WHOLE]

    @contextmanager
    def opened(self, graph: Graph) -> Iterator[Bundle]:
        """The network compiled and open; gone when the block ends."""
        with tempfile.TemporaryDirectory(prefix="mpcompile-") as folder:
            with self._open(graph, Path(folder) / "model.mpc") as bundle:
                yield bundle

    def _open(self, graph: Graph, path: Path, measured=None) -> Bundle:
        from mpcompile.compiler.api import compile_model

        compile_model(graph, self.target, path, measured=measured)
        return open_bundle(path, threads=self.threads)


def _weight_bytes(layer: Layer, families: Mapping[tuple[int, int], str]) -> int:
    """What its packed weights take: planes for popcount, else a byte each."""
    parts = {(i, j): part for i, term in enumerate(layer.terms) if isinstance(term, ContractTerm)
             for j, part in enumerate(term.parts)}
    return sum(p.q.size * p.grid.planes // 8 if families.get(place) == "popcount" else p.q.size
               for place, p in parts.items())


def _forced(variant: Cut):
    """The variant's families as a measurement that makes any other too dear to choose."""
    wanted = {id(layer.terms[i].parts[j]): family for layer in variant.graph.nodes
              for (i, j), family in variant.families.get(layer.name, {}).items()}

    def cycles(part: ContractPart, grid: Grid, output: tuple[int, int], family: str) -> float | None:
        if id(part) not in wanted:
            return None
        return 1.0 if wanted[id(part)] == family else 1e15
    return cycles


@cache
def _code() -> str:
    """A hash of the sources that decide what code a layer becomes: a change of a kernel is another version."""
    from mpcompile import compiler, kernels, schedules

    digest = hashlib.sha256()
    for room in (compiler, kernels, schedules):
        for path in sorted(Path(room.__file__).parent.rglob("*.py")):
            digest.update(path.read_bytes())
    return digest.hexdigest()[:16]
