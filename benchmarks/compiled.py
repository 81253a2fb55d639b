"""Networks through QONNX and mpcompile to open bundles: the only way any row gets its kernels."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

import mpcompile as mp
from benchmarks.networks import Network
from mpcompile.errors import MpError
from mpcompile.schedules.tile import Tile

LIKENESS = 0.9


class Bench:
    """Networks and their bundles in a folder. Each is made and compiled once.

    Without `folder` they go when the run ends. In a folder that is kept, what is there is taken as it is, by whatever
    version of the compiler it was made.
    """

    def __init__(self, target: str = "native", say=print, folder: Path | None = None):
        self._temporary = tempfile.TemporaryDirectory(prefix="mpcompile-bench-") if folder is None else None
        self.folder, self.target, self.say = Path(folder or self._temporary.name), target, say
        self.folder.mkdir(parents=True, exist_ok=True)
        self._open: dict[tuple[str, int], object] = {}

    def onnx(self, name: str, make) -> Path:
        """NAME.onnx, from make() → Network where it is not there yet."""
        path = self.folder / f"{_plain(name)}.onnx"
        if not self._example(name).exists():
            network: Network = make()
            network.save(path)
            np.savez(self._example(name), x=network.x, y=network.y)
        return path

    def example(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """What a network was calibrated with, and what numpy computed for it; `onnx` has made it."""
        with np.load(self._example(name)) as arrays:
            return arrays["x"], arrays["y"]

    def bundle(self, name: str, make, threads: int = 1, tiles: Mapping[str, Tile] | None = None):
        """make() → Network, written as QONNX, compiled (`tiles`: layer → its schedule's tile) and opened.

        Raises MpError where it computes something else than numpy did when the network was made: a fast wrong result is
        none. (numpy sums in float: a rounding here and there falls the other way, which spreads in a deep network.)
        """
        if (name, threads) not in self._open:
            path = self.compiled(name, make, tiles)
            bundle = self._open[name, threads] = mp.open_bundle(path, threads=threads)
            x, expected = self.example(name)
            likeness = np.corrcoef(bundle.run(x).ravel(), expected.ravel())[0, 1]
            if not likeness > LIKENESS:
                raise MpError(f"{name}: the bundle's output and numpy's correlate by {likeness:.3f} only")
        return self._open[name, threads]

    def compiled(self, name: str, make, tiles: Mapping[str, Tile] | None = None) -> Path:
        """NAME.mpc."""
        source = self.onnx(name, make)
        path = source.with_suffix(".mpc")
        if not path.exists():
            self.say(f"compiling {name}")
            mp.compile(source, target=self.target, output=path, tiles=tiles)
        return path

    def close(self) -> None:
        for bundle in self._open.values():
            bundle.close()
        if self._temporary:
            self._temporary.cleanup()

    def _example(self, name: str) -> Path:
        return self.folder / f"{_plain(name)}.npz"


def _plain(name: str) -> str:
    return "".join(c if c.isalnum() else "_" for c in name)
