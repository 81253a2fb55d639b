"""Compiles here and times on devices, for the room that knows neither: the latency table's `Workbench` over mpcompile's
own pipeline; `profile`."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from mpcompile import __version__
from mpcompile.errors import DeviceLost
from mpcompile.ir.graph import Graph
from mpcompile.ir.grid import Grid
from mpcompile.ir.layer import ContractPart, ContractTerm, Layer
from mpcompile.latency.cache import Cache
from mpcompile.latency.measure import Measurement, Timing
from mpcompile.latency.node_map import NodeMap
from mpcompile.latency.profile import build_table
from mpcompile.latency.subgraph import Cut, Families, Readings
from mpcompile.latency.table import LatencyTable, parse_bits
from mpcompile.remote.build_ahead import map_built
from mpcompile.remote.fit import board_for, threads_on
from mpcompile.remote.pool import Pool, open_pool
from mpcompile.runtime.archive import read_manifest, tvm_version
from mpcompile.runtime.device import WHOLE, Device, Kernel
from mpcompile.runtime.variants import variants_of
from mpcompile.targets import Target, cpu

if TYPE_CHECKING:
    from mpcompile.compiler.layer_library import LayerKernel
    from mpcompile.compiler.passes.choose_formats import Allowed
    from mpcompile.records.choose import TunedTiles

CELL_MIN_TIME = 0.0001
"""Seconds of one sample of a layer, for the latency table."""
MOST_STIRRED = 16 << 20


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


def profile(
    model: str | os.PathLike | Graph,
    target: str | os.PathLike | Target = "native",
    *,
    bits: str | None = None,
    cache: str | os.PathLike | None = None,
    threads: int | None = None,
    rounds: int = 21,
    progress: Callable[[int, int], None] | None = None,
    tracker: str | None = None,
    key: str | None = None,
    pool: Pool | None = None,
) -> NetworkProfile | LatencyTable:
    """How long each layer of `model`, compiled for `target`, takes: on this machine, or on all the devices of `key`
    that `tracker` ("HOST:PORT") has, side by side; or on those of an open `pool`.

    With `bits` ("w1234a1248") the whole latency table: every layer at every pair of bits. What is measured goes to the
    file `cache` at once, and is not measured again. Without, each layer as it is. Raises MpError's subclasses.
    """
    from mpcompile.frontend import load

    w_bits, a_bits = parse_bits(bits) if bits is not None else ([], [])
    graph = model if isinstance(model, Graph) else load(Path(model))
    with nullcontext(pool) if pool else open_pool(tracker, key) as pool:
        bench = Workbench(board_for(target, pool), pool, threads, rounds).among(graph)
        if bits is None:
            return bench.profile(graph, progress)
        with tempfile.TemporaryDirectory(prefix="mpcompile-") as folder:
            kept = Cache(cache if cache is not None else Path(folder) / "cells.jsonl")
            table = build_table(graph, w_bits, a_bits, bench, kept, progress=progress)
        table.beside = bench.beside(graph, table)
        return table


class Workbench:
    """Builds for `target` here and times on the devices of `pool` with `threads` threads (None: a device's physical
    cores). Raises UsageError at more threads than they have CPUs."""

    def __init__(
        self, target: Target, pool: Pool, threads: int | None = None, rounds: int = 21, min_time: float = 0.001
    ):
        self.target, self.pool = target, pool
        self.threads = threads_on(pool.about, threads)
        self.rounds, self.min_time = rounds, min_time
        built = json.dumps(target.to_json(), sort_keys=True)
        self.stirred = 0
        self.identity = {
            "target": target.name,
            "target_sha": hashlib.sha256(built.encode()).hexdigest()[:16],
            "cpu": pool.about.cpu,
            "threads": str(self.threads),
            "mpcompile": __version__,
            "kernels": _code(),
            "tvm": tvm_version(),
        }

    def among(self, graph: Graph) -> Workbench:
        """This workbench, for layers of `graph`: between two runs of one, the caches see as many bytes as a run of the
        network brings, its weights as codes, up to MOST_STIRRED."""
        fused = self.fuse(graph)
        layers = [n for n in fused.nodes if isinstance(n, Layer)]
        parts = [part for n in layers for term in n.terms if isinstance(term, ContractTerm) for part in term.parts]
        self.stirred = min(sum(part.q.size for part in parts), MOST_STIRRED) // 65536 * 65536
        self.identity["stirred"] = str(self.stirred)
        return self

    @cached_property
    def _tiles(self) -> TunedTiles:
        """What compile_model takes too: the records that ship."""
        from mpcompile.records.choose import TunedTiles
        from mpcompile.records.store import records_for

        return TunedTiles(records_for(self.target))

    # -- what the latency table asks for -------------------------------------------------------------
    def fuse(self, graph: Graph) -> Graph:
        from mpcompile.compiler.passes.base import apply_all
        from mpcompile.compiler.passes.to_layers import TO_LAYERS

        return apply_all(graph, TO_LAYERS)

    @property
    def families(self) -> Readings:
        from mpcompile.kernels.families import families

        return {f.name: f for f in families()}

    def choose(self, fused: Graph) -> Families:
        from mpcompile.compiler.passes.choose_formats import ChooseFormats

        return ChooseFormats(self.target).apply(fused).families

    def candidates(self, part: ContractPart, grid: Grid, output: tuple[int, int]) -> Sequence[tuple[str, float]]:
        from mpcompile.kernels.select import candidates

        return candidates(part, grid, self.target, output)

    def lower(self, variant: Cut) -> LayerKernel:
        from mpcompile.compiler.layer_library import lower_layer

        return lower_layer(variant.graph, variant.layer, self.target, _only(variant.families), self._tiles)

    @property
    def lanes(self) -> int:
        return self.pool.lanes

    @property
    def slower(self) -> float:
        return self.pool.slower

    def known(self, reference: float) -> float:
        return self.pool.known(reference)

    def time(
        self, batches: Sequence[Sequence[LayerKernel]], done: Callable[[int, Measurement | DeviceLost], None]
    ) -> None:
        """Each batch on one device; while devices are at work, the next batch is being built."""

        def build(at: int) -> dict[str, Kernel]:
            from mpcompile.compiler.layer_library import build_libraries

            libraries = build_libraries(batches[at], self.target, len(cpu.allowed()))
            return {
                str(i): Kernel(library, *kernel.plan(), self.target.arch, self.target.features)
                for i, (library, kernel) in enumerate(zip(libraries, batches[at]))
            }

        def timed(device: Device, at: int, kernels: dict[str, Kernel]) -> Measurement:
            return device.time_kernels(
                kernels, self.threads, stirred=self.stirred, rounds=self.rounds, min_time=CELL_MIN_TIME
            )

        map_built(self.pool, build, timed, range(len(batches)), done)

    # -- whole networks ------------------------------------------------------------------------------
    def profile(self, graph: Graph, progress: Callable[[int, int], None] | None = None) -> NetworkProfile:
        """Every layer of the network, and the network, in one interleaved measurement."""
        with self.compiled(graph) as path:
            return self.profile_bundle(path, graph.source, progress)

    def profile_bundle(
        self, bundle: Path, source: str, progress: Callable[[int, int], None] | None = None
    ) -> NetworkProfile:
        """The same of a bundle; `source` is the model's name."""
        found = self.pool.run(
            lambda device: device.profile(
                bundle,
                self.threads,
                stirred=self.stirred,
                rounds=self.rounds,
                min_time=self.min_time,
                progress=progress,
            )
        )
        (variant,) = variants_of(bundle, read_manifest(bundle))
        layers = {name: t for name, t in found.timings.items() if name != WHOLE}
        return NetworkProfile(source, dict(self.identity), variant.layers, layers, found[WHOLE], found.note())

    def beside(self, graph: Graph, table: LatencyTable) -> float:
        """Seconds of the network from end to end, less what the table says of its layers."""
        with self.compiled(graph, table) as path:
            found = self.race({WHOLE: path}, self.min_time)
        return found[WHOLE].seconds - sum(table.predict_layers({}).values())

    def race(
        self, files: Mapping[str, Path], min_time: float, progress: Callable[[int, int], None] | None = None
    ) -> Measurement:
        """Whole networks in turn, on one device."""
        return self.pool.run(
            lambda device: device.race(files, self.threads, rounds=self.rounds, min_time=min_time, progress=progress)
        )

    @contextmanager
    def compiled(self, graph: Graph, table: LatencyTable | None = None) -> Iterator[Path]:
        """The network's bundle, gone when the block ends. With a table, in the families that it found best."""
        with tempfile.TemporaryDirectory(prefix="mpcompile-") as folder:
            yield self.compile(graph, Path(folder) / "model.mpc", table)

    def compile(self, model: Graph | os.PathLike, path: Path, table: LatencyTable | None = None) -> Path:
        """The bundle of a model; with the latency table of its network, in the families that the table found best."""
        from mpcompile.api.compile import compile_model
        from mpcompile.frontend import load

        graph = model if isinstance(model, Graph) else load(Path(model))
        return compile_model(
            graph, self.target, path, allowed=allowed_by_table(table, graph, self.fuse) if table else None
        )


def allowed_by_table(table: LatencyTable, graph: Graph, fuse: Callable[[Graph], Graph]) -> Allowed:
    """The table's choice for its network at the bits that `graph` has: of each convolution, the families that read the
    form that it found fastest.

    Raises UsageError where the table lacks a layer or its bits.
    """
    from mpcompile.kernels.families import families

    places = NodeMap(graph, fuse)
    allowed: dict[str, dict[tuple[int, int], list[str]]] = {}
    for name, knob in places.knobs.items():
        form = table.format(name, knob.w, knob.a)
        for place in places.parts[name]:
            allowed.setdefault(places.home[name], {})[place] = [f.name for f in families() if f.reads == form]
    return allowed


def _only(families: Families) -> Allowed:
    """Each contraction by its family, and by no other."""
    return {layer: {place: (family,) for place, family in of.items()} for layer, of in families.items()}


@cache
def _code() -> str:
    """A hash of the sources and records that decide what code a layer becomes: a changed kernel is another version."""
    from mpcompile import compiler, kernels, schedules

    digest = hashlib.sha256()
    for room in (compiler, kernels, schedules):
        for path in sorted(p for p in Path(room.__file__).parent.rglob("*") if p.suffix in (".py", ".json")):
            digest.update(path.read_bytes())
    return digest.hexdigest()[:16]
