"""What the search is handed: functions that measure, compile and time on the device. It knows nothing of how."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mpcompile.latency.table import LatencyTable

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Device:
    """`identity` names everything that times depend on besides the network: target, CPU, threads, versions.

    table(onnx file, weight bits, activation bits, cache file, progress): the latency table of this network, each number
    measured once and kept in the cache file. measure(onnx file, bundle file, table): compiles the file to a bundle
    there, with the kernels that the network's table found fastest, and times it whole; median seconds an image.

    The others take any file that the device runs, a bundle or an .onnx file (by ONNX Runtime); images are float32
    [N, C, H, W]. answers(file, images): int64 [N], the classes. race(name → file, progress): all of them timed in turn,
    interleaved; {"timings": {name: {"seconds", "low", "high", …}}, "note": …}. verify(onnx file, bundle, images):
    {"equal", "samples", "summary"}, buffer by buffer against the reference. profile(onnx file, bundle): {"layers":
    [{"name", "parts", "time": {"seconds", …}, …}], "whole": …, "note": …}. quantize(float onnx file, int8 onnx file,
    images): the outside baseline. `about`: {"machine": …, "versions": …}, for the record; nothing depends on it.
    """

    identity: Mapping[str, str]
    table: Callable[[Path, Sequence[int], Sequence[int], Path, Progress], LatencyTable]
    measure: Callable[[Path, Path, LatencyTable], float]
    answers: Callable[[Path, np.ndarray], np.ndarray]
    race: Callable[[Mapping[str, Path], Progress], dict]
    verify: Callable[[Path, Path, np.ndarray], dict]
    profile: Callable[[Path, Path], dict]
    quantize: Callable[[Path, Path, np.ndarray], None]
    about: Mapping[str, Mapping]
