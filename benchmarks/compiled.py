"""Networks through QONNX and mpcompile to open bundles: the only way any row gets its kernels."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np

import mpcompile as mp
from benchmarks.networks import Network
from mpcompile.errors import MpError


class Bench:
    """A folder for files of one run, and the bundles in it. Compiles each network once."""

    def __init__(self, target: str = "native", say=print):
        self._folder = tempfile.TemporaryDirectory(prefix="mpcompile-bench-")
        self.folder, self.target, self.say = Path(self._folder.name), target, say
        self._open: dict[tuple[str, int], object] = {}
        self._known: dict[str, tuple[np.ndarray, np.ndarray]] = {}

    def onnx(self, name: str, make) -> Path:
        """NAME.onnx, from make() → Network where it is not there yet."""
        path = self.folder / f"{_plain(name)}.onnx"
        if not path.exists():
            network: Network = make()
            network.save(path)
            self._known[name] = network.x, network.y
        return path

    def bundle(self, name: str, make, threads: int = 1):
        """make() → Network, written as QONNX, compiled and opened.

        Raises MpError where it does not compute what numpy did when the network was made: a fast wrong result is none.
        """
        if (name, threads) not in self._open:
            source = self.onnx(name, make)
            path = source.with_suffix(".mpc")
            if not path.exists():
                self.say(f"compiling {name}")
                mp.compile(source, target=self.target, output=path)
            bundle = self._open[name, threads] = mp.open_bundle(path, threads=threads)
            x, expected = self._known[name]
            likeness = np.corrcoef(bundle.run(x).ravel(), expected.ravel())[0, 1]
            if not likeness > 0.99:
                raise MpError(f"{name}: the bundle's output and numpy's correlate by {likeness:.3f} only")
        return self._open[name, threads]

    def close(self) -> None:
        for bundle in self._open.values():
            bundle.close()
        self._folder.cleanup()


def _plain(name: str) -> str:
    return "".join(c if c.isalnum() else "_" for c in name)
