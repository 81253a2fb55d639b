"""What a search measures on: compiles here, and asks the devices of a pool for tables, times, answers and checks."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path

import numpy as np

from mpcompile import __version__
from mpcompile.api.pool_workbench import PoolWorkbench
from mpcompile.api.profile import profile
from mpcompile.ir.bits import BitCandidates
from mpcompile.latency import onnxruntime
from mpcompile.latency.progress import Progress
from mpcompile.latency.table import LatencyTable
from mpcompile.remote.fit import board_for
from mpcompile.remote.pool import DevicePool
from mpcompile.remote.remote_bundle import RemoteBundle
from mpcompile.runtime.device import NETWORK
from mpcompile.search.config import MeasureOptions

NETWORK_MIN_TIME = 0.01
"""Seconds of one sample of a whole network."""
PROFILE_ROUNDS = 5
"""Of a profile, which takes every layer between stirred caches: on a disturbed machine each costs up to eight rounds."""
VERSIONS = ("apache-tvm", "apache-tvm-ffi", "numpy", "onnx", "onnxruntime", "torch")


class PoolSearchDevice:
    """The search's device: builds for the target of `measure` here; each question goes to one of the devices of `pool`.
    A .mpc file is run by our runtime, an .onnx file by ONNX Runtime."""

    def __init__(self, measure: MeasureOptions, pool: DevicePool):
        """Raises UsageError, TargetError where the devices cannot run what is built for that target."""
        self.pool, self.board = pool, board_for(measure.target, pool)
        self.bench = PoolWorkbench(self.board, pool, measure.threads or None, measure.rounds)
        self.threads = self.bench.threads

    @property
    def identity(self) -> Mapping[str, str]:
        return self.bench.identity

    def table(self, model: Path, bits: BitCandidates, cache: Path, progress: Progress) -> LatencyTable:
        found = profile(
            model,
            self.board,
            bits=bits,
            cache=cache,
            threads=self.threads,
            rounds=self.bench.rounds,
            progress=progress,
            pool=self.pool,
        )
        assert isinstance(found, LatencyTable)  # it is, where bits are given
        return found

    def compile(self, model: Path, bundle: Path, table: LatencyTable) -> None:
        self.bench.compile(model, bundle, table)

    def network_seconds(self, bundle: Path) -> float:
        return self.bench.race({NETWORK: bundle}, NETWORK_MIN_TIME)[NETWORK].seconds

    def quantize(self, source: Path, target: Path, images: np.ndarray) -> None:
        """ONNX Runtime's static int8 quantization, calibrated on `images` [N, C, H, W]; done here."""
        onnxruntime.quantize_int8(source, target, images)

    def outputs(self, file: Path, inputs: Mapping[str, np.ndarray]) -> Sequence[np.ndarray]:
        found = self.pool.run(lambda device: device.run(file, dict(inputs), self.threads))
        return [np.asarray(value) for value in found.values()]

    def verify(self, model: Path, bundle: Path, images: np.ndarray) -> dict:
        """The bundle, run there, against the exact reference here, buffer by buffer: equal, samples, summary."""
        from mpcompile.api.verify import verify

        def compare(device):
            return verify(model, RemoteBundle(device, bundle, self.threads), images, witness="none").bundle

        report = self.pool.run(compare)
        return {"equal": report.equal, "samples": report.samples, "summary": report.summary}

    def profile(self, model: Path, bundle: Path) -> dict:
        """Each layer of the bundle as it runs in the network, and the network, in one interleaved measurement; see
        NetworkProfile.to_json."""
        from mpcompile.frontend import load

        graph = load(model)
        bench = PoolWorkbench(self.board, self.pool, self.threads, min(self.bench.rounds, PROFILE_ROUNDS)).among(graph)
        return bench.profile_bundle(bundle, graph.source).to_json()

    def race(self, files: Mapping[str, Path], progress: Progress) -> dict:
        """All files in turn, interleaved, on one device; see Measurement.to_json."""
        found = self.bench.race(files, NETWORK_MIN_TIME, progress)
        return {**found.to_json(), "note": found.note(), "threads": self.threads}

    def about(self) -> dict:
        """The devices and the versions, for the record."""
        about = self.pool.about
        here = {name: _version(name) for name in VERSIONS}
        if self.pool.source:
            here |= {
                "apache-tvm, on the device": about.tvm,
                "onnxruntime, on the device": about.onnxruntime,
                "mpcompile, on the device": about.mpcompile,
                "Python, on the device": about.python,
            }
        return {
            "machine": {
                "cpu": about.cpu,
                "cores": about.cores,
                "threads": self.threads,
                "target": self.board.name,
                "target description": self.board.description,
                "features": sorted(self.board.features),
                "system": f"{about.system} {about.arch}",
                **({"devices": self.pool.name} if self.pool.source else {}),
            },
            "versions": {
                "mpcompile": __version__,
                "Python": platform.python_version(),
                **{name: version for name, version in here.items() if version},
            },
        }


def _version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None
