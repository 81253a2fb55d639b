"""Compiles here and times on devices, for the room that knows neither: the latency table's `PoolWorkbench` over mpcompile's
own pipeline; `profile`."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from mpcompile import __version__
from mpcompile.api.cell_batches import BuiltTogether, Pace
from mpcompile.api.network_profile import NetworkProfile
from mpcompile.errors import DeviceLost
from mpcompile.ir.graph import Graph
from mpcompile.ir.grid import Grid
from mpcompile.ir.layer import ContractPart, ContractTerm, Layer
from mpcompile.latency.fingerprint import measured_code
from mpcompile.latency.measure import Measurement
from mpcompile.latency.node_map import NodeMap
from mpcompile.latency.progress import Progress
from mpcompile.latency.subgraph import Families, Readings, Subgraph
from mpcompile.latency.table import LatencyTable
from mpcompile.remote.build_ahead import map_built
from mpcompile.remote.fit import threads_on
from mpcompile.remote.pool import DevicePool
from mpcompile.runtime.archive import read_manifest, tvm_version
from mpcompile.runtime.device import NETWORK, Device, Kernel
from mpcompile.runtime.variants import variants_of
from mpcompile.targets import Target, cpu
from mpcompile.temporary import temporary_folder

if TYPE_CHECKING:
    from mpcompile.compiler.layer_library import LayerKernel
    from mpcompile.compiler.passes.choose_formats import Allowed
    from mpcompile.records.choose import TunedTiles

CELL_MIN_TIME = 0.0001
"""Seconds of one sample of a layer, for the latency table."""
MOST_STIRRED = 16 << 20


class PoolWorkbench:
    """Builds for `target` here and times on the devices of `pool` with `threads` threads (None: a device's physical
    cores). Raises UsageError at more threads than they have CPUs."""

    def __init__(
        self, target: Target, pool: DevicePool, threads: int | None = None, rounds: int = 21, min_time: float = 0.001
    ):
        self.target, self.pool = target, pool
        self.threads = threads_on(pool.about, threads)
        self.rounds, self.min_time = rounds, min_time
        built = json.dumps(target.to_json(), sort_keys=True)
        self.stirred = 0
        self.pace = Pace()
        self.identity = {
            "target": target.name,
            "target_sha": hashlib.sha256(built.encode()).hexdigest()[:16],
            "cpu": pool.about.model(target.kind),
            "threads": str(self.threads),
            "mpcompile": __version__,
            "kernels": measured_code(),
            "records": self._tiles.records.fingerprint,
            "tvm": tvm_version(),
        }

    def among(self, graph: Graph) -> PoolWorkbench:
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

    def lower(self, subgraph: Subgraph) -> LayerKernel:
        from mpcompile.compiler.layer_library import lower_layer

        return lower_layer(subgraph.graph, subgraph.layer, self.target, _only(subgraph.families), self._tiles)

    @property
    def devices_at_once(self) -> int:
        return self.pool.devices_at_once

    @property
    def at_once(self) -> int:
        return self.pace.at_once

    @property
    def slower(self) -> float:
        return self.pool.slower

    def known(self, reference: float) -> float:
        return self.pool.known(reference)

    def time(
        self, batches: Sequence[Sequence[LayerKernel]], done: Callable[[int, Measurement | DeviceLost], None]
    ) -> None:
        """Each batch on one device; while devices are at work, the next batch is being built."""
        from mpcompile.compiler.layer_library import build_libraries

        cores = len(cpu.allowed())
        libraries = BuiltTogether(batches, lambda kernels: build_libraries(kernels, self.target, cores), cores)

        def build(at: int) -> dict[str, Kernel]:
            return {
                str(i): Kernel(library, *kernel.plan(), self.target.kind, self.target.arch, self.target.features)
                for i, (library, kernel) in enumerate(zip(libraries.take(at), batches[at]))
            }

        def timed(device: Device, at: int, kernels: dict[str, Kernel]) -> Measurement:
            began = time.monotonic()
            found = device.time_kernels(
                kernels, self.threads, stirred=self.stirred, rounds=self.rounds, min_time=CELL_MIN_TIME
            )
            self.pace.took(time.monotonic() - began, len(kernels))
            return found

        map_built(self.pool, build, timed, range(len(batches)), done)

    # -- whole networks ------------------------------------------------------------------------------
    def profile(self, graph: Graph, progress: Progress | None = None) -> NetworkProfile:
        """Every layer of the network, and the network, in one interleaved measurement."""
        with self.compiled(graph) as path:
            return self.profile_bundle(path, graph.source, progress)

    def profile_bundle(self, bundle: Path, source: str, progress: Progress | None = None) -> NetworkProfile:
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
        layers = {name: t for name, t in found.timings.items() if name != NETWORK}
        return NetworkProfile(source, dict(self.identity), variant.layers, layers, found[NETWORK], found.note())

    def beside(self, graph: Graph, table: LatencyTable) -> float:
        """Seconds of the network from end to end, less what the table says of its layers."""
        with self.compiled(graph, table) as path:
            found = self.race({NETWORK: path}, self.min_time)
        return found[NETWORK].seconds - sum(table.predict_layers({}).values())

    def race(self, files: Mapping[str, Path], min_time: float, progress: Progress | None = None) -> Measurement:
        """Whole networks in turn, on one device."""
        return self.pool.run(
            lambda device: device.race(files, self.threads, rounds=self.rounds, min_time=min_time, progress=progress)
        )

    @contextmanager
    def compiled(self, graph: Graph, table: LatencyTable | None = None) -> Iterator[Path]:
        """The network's bundle, gone when the block ends. With a table, in the families that it found best."""
        with temporary_folder() as folder:
            yield self.compile(graph, folder / "model.mpc", table)

    def compile(self, model: Graph | os.PathLike, path: Path, table: LatencyTable | None = None) -> Path:
        """The bundle of a model; with the latency table of its network, in the families that the table found best."""
        from mpcompile.api.compile import compile_model
        from mpcompile.frontend import graph_of

        graph = graph_of(model)
        return compile_model(
            graph, self.target, path, allowed=allowed_by_table(table, graph, self.fuse) if table else None
        )


def allowed_by_table(table: LatencyTable, graph: Graph, fuse: Callable[[Graph], Graph]) -> Allowed:
    """The table's choice for its network at the bits that `graph` has: of each convolution, the families that read the
    form that it found fastest.

    Raises UsageError where the table lacks a layer or its bits.
    """
    from mpcompile.kernels.families import families

    node_map = NodeMap(graph, fuse)
    allowed: dict[str, dict[tuple[int, int], list[str]]] = {}
    for name, knob in node_map.knobs.items():
        form = table.format(name, knob.w, knob.a)
        for part in node_map.parts[name]:
            allowed.setdefault(node_map.home[name], {})[part] = [f.name for f in families() if f.reads == form]
    return allowed


def _only(families: Families) -> Allowed:
    """Each contraction by its family, and by no other."""
    return {layer: {part: (family,) for part, family in of.items()} for layer, of in families.items()}
