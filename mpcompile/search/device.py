"""What the search is handed: a device that measures, compiles and times. The search knows nothing of how."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from mpcompile.ir.bits import BitCandidates
from mpcompile.latency.progress import Progress
from mpcompile.latency.table import LatencyTable


class SearchDevice(Protocol):
    """Files are models (.onnx) and bundles (.mpc), as the device runs both; images, or whatever the network
    takes, float32 [N, …]. All
    raise MpError's subclasses."""

    @property
    def identity(self) -> Mapping[str, str]:
        """All that times depend on besides the network: target, CPU, threads, versions."""
        ...

    def table(self, model: Path, bits: BitCandidates, cache: Path, progress: Progress) -> LatencyTable:
        """The latency table of this network, each number measured once and kept in the file `cache`."""
        ...

    def compile(self, model: Path, bundle: Path, table: LatencyTable) -> None:
        """The model to the file `bundle`, with the kernels that its network's table found fastest: the same bytes of
        the same model and table."""
        ...

    def network_seconds(self, bundle: Path) -> float:
        """The bundle's time from end to end: median seconds of one image."""
        ...

    def outputs(self, file: Path, inputs: Mapping[str, np.ndarray]) -> Sequence[np.ndarray]:
        """What a bundle, or a model in ONNX Runtime, makes of inputs [N, …]: its outputs [N, …] in the file's order."""
        ...

    def race(self, files: Mapping[str, Path], progress: Progress) -> dict:
        """All files timed in turn, interleaved: {"timings": {name: {"seconds", "low", "high", …}}, "note": …}."""
        ...

    def verify(self, model: Path, bundle: Path, images: np.ndarray) -> dict:
        """The bundle against the reference, buffer by buffer: {"equal", "samples", "summary"}."""
        ...

    def profile(self, model: Path, bundle: Path) -> dict:
        """Time by layer, in the network: {"layers": [{"name", "parts", "time": {"seconds", …}, …}], "whole": …,
        "note": …}."""
        ...

    def quantize(self, source: Path, target: Path, images: np.ndarray) -> None:
        """A float model to its int8 form by somebody else's tool, calibrated on `images`: the outside baseline."""
        ...

    def about(self) -> Mapping[str, Mapping]:
        """{"machine": …, "versions": …}, for the record; nothing depends on it."""
        ...
