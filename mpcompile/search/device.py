"""What the search is handed: functions that measure, compile and time on the device. It knows nothing of how."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mpcompile.latency.table import LatencyTable

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Device:
    """`identity` names everything that times depend on besides the network: target, CPU, threads, versions.

    table(onnx file, weight bits, activation bits, cache file, progress): the latency table of this network, each number
    measured once and kept in the cache file. measure(onnx file, bundle file): compiles the file to a bundle there, and
    times it whole; median seconds an image.
    """

    identity: Mapping[str, str]
    table: Callable[[Path, Sequence[int], Sequence[int], Path, Progress], LatencyTable]
    measure: Callable[[Path, Path], float]
