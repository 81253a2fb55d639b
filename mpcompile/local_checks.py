"""What a search asks of this machine besides its table and its timings: comparisons, profiles, checks and a record."""

from __future__ import annotations

import platform
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from importlib import metadata
from pathlib import Path

import numpy as np

from mpcompile import __version__, cpu
from mpcompile.latency import onnxruntime
from mpcompile.latency.measure import Timer, measure
from mpcompile.targets import Target

WHOLE_MIN_TIME = 0.01
"""Seconds of one sample of a whole network."""
PROFILE_ROUNDS = 5
"""Of a profile, which takes every layer between stirred caches: on a disturbed machine each costs up to eight rounds."""
VERSIONS = ("apache-tvm", "apache-tvm-ffi", "numpy", "onnx", "onnxruntime", "torch")


class LocalChecks:
    """On this machine, with `threads` threads (resolved), bundles for `board`. A .mpc file is run by our runtime, an
    .onnx file by ONNX Runtime."""

    def __init__(self, board: Target, threads: int, rounds: int):
        self.board, self.threads, self.rounds = board, threads, rounds

    def quantize(self, source: Path, target: Path, images: np.ndarray) -> None:
        """ONNX Runtime's static int8 quantization, calibrated on `images` [N, C, H, W]."""
        onnxruntime.quantize_int8(source, target, images)

    def answers(self, file: Path, images: np.ndarray) -> np.ndarray:
        """int64 [N]: the class that the file gives each image, float32 [N, C, H, W]."""
        if file.suffix == ".onnx":
            return onnxruntime.answers(onnxruntime.session(str(file), self.threads), images)
        from mpcompile.runtime import open_bundle

        with open_bundle(file, threads=self.threads) as bundle:
            return np.asarray(bundle.run(images)).reshape(len(images), -1).argmax(1)

    def verify(self, model: Path, bundle: Path, images: np.ndarray) -> dict:
        """The bundle against the exact reference, buffer by buffer: equal, samples, summary."""
        from mpcompile.compiler.verify import verify

        report = verify(model, bundle, images, threads=self.threads)
        return {"equal": report.equal, "samples": report.samples, "summary": report.summary}

    def profile(self, model: Path, bundle: Path) -> dict:
        """Each layer of the bundle in its place, and the whole of it, in one interleaved measurement; see
        NetworkProfile.to_json."""
        from mpcompile.frontend import load
        from mpcompile.runtime import open_bundle
        from mpcompile.workbench import LocalWorkbench

        graph = load(model)
        bench = LocalWorkbench(self.board, self.threads, min(self.rounds, PROFILE_ROUNDS)).among(graph)
        with open_bundle(bundle, threads=self.threads) as opened:
            return bench.profile_bundle(opened, graph.source).to_json()

    def race(self, files: Mapping[str, Path], progress: Callable[[int, int], None] | None = None) -> dict:
        """All files in turn, interleaved, in one process; see Measurement.to_json."""
        from mpcompile.runtime import open_bundle

        with ExitStack() as stack:
            subjects: dict[str, Timer] = {}
            for name, file in files.items():
                if file.suffix == ".onnx":
                    subjects[name] = onnxruntime.timer(onnxruntime.session(str(file), self.threads))
                else:
                    subjects[name] = stack.enter_context(open_bundle(file, threads=self.threads)).timer()
            found = measure(subjects, rounds=self.rounds, min_time=WHOLE_MIN_TIME, progress=progress)
        return {**found.to_json(), "note": found.note(), "threads": self.threads}

    def about(self) -> dict:
        """The machine and the versions, for the record."""
        found = {name: _version(name) for name in VERSIONS}
        return {
            "machine": {
                "cpu": cpu.name(),
                "cores": cpu.cores(),
                "threads": self.threads,
                "target": self.board.name,
                "target description": self.board.description,
                "features": sorted(self.board.features),
                "system": f"{platform.system()} {platform.release()} {cpu.arch()}",
            },
            "versions": {
                "mpcompile": __version__,
                "Python": platform.python_version(),
                **{name: version for name, version in found.items() if version},
            },
        }


def _version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None
