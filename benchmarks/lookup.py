"""Would a `lookup` kernel family pay on AVX2 without VNNI? `lookup.c`'s inner loops against each other, in one run.

`python -m benchmarks.lookup` checks the three families' sums against numpy, measures them in turn, and writes
`benchmarks/results/lookup.md`: MAC a cycle for several bit pairs, one row of a 3×3 layer, built for x86-64-v3.
"""

from __future__ import annotations

import argparse
import ctypes
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from benchmarks import roofline
from mpcompile.cli.console import complain
from mpcompile.errors import MissingDependency, MpError
from mpcompile.kernels.accumulators import int16_steps
from mpcompile.latency.measure import measure
from mpcompile.latency.timer import Timer
from mpcompile.targets import cpu

SOURCE = Path(__file__).with_name("lookup.c")
RESULT = Path(__file__).with_name("results") / "lookup.md"
TARGET = "x86-64-v3"
PIXELS = 8
PAIRS = ((1, 1), (1, 2), (2, 2), (1, 3), (2, 3), (1, 4), (2, 4), (3, 4), (4, 4), (1, 8), (2, 8))
CHANNELS = (64, 128, 256)
KINDS = {"popcount": 0, "dot in 16 bits": 1, "dot in 32 bits": 2, "lookup": 3}
WORTH = 1.1
"""How many times faster than both others the family must be somewhere to be worth having."""


class Case:
    """Random codes and weights of one bit pair, `channels` to `channels`, in each family's layout, and their sums."""

    def __init__(self, library: ctypes.CDLL, w: int, a: int, channels: int):
        rng = np.random.default_rng(channels + 8 * w + a)
        self.library, self.w, self.a, self.channels = library, w, a, channels
        codes = rng.integers(0, 1 << a, (3, PIXELS + 2, channels)).astype(np.uint8)
        weights = rng.integers(0, 1 << w, (channels, 9, channels)).astype(np.uint8)
        windows = np.stack([codes[t // 3, t % 3 : t % 3 + PIXELS] for t in range(9)], 1).astype(np.int64)
        self.sums = np.einsum("ptc,otc->po", windows, weights).astype(np.int32)
        self.most = int16_steps((1 << a) - 1, (0, (1 << w) - 1))
        self.out = np.zeros_like(self.sums)
        planes = np.stack([_words(codes >> j & 1) for j in range(a)], 2)
        self.operands = {
            "popcount": (planes, _split(weights, w)),
            "dot in 16 bits": (codes, _grouped(weights, 4, np.int8)),
            "dot in 32 bits": (codes, _grouped(weights, 2, np.int16)),
            "lookup": (codes, _indices(weights, w)),
        }
        if not self.most:
            del self.operands["dot in 16 bits"]

    def run(self, name: str, n: int = 1) -> None:
        data, weights = self.operands[name]
        self.library.run(
            n,
            KINDS[name],
            data.ctypes.data_as(ctypes.c_void_p),
            weights.ctypes.data_as(ctypes.c_void_p),
            self.out.ctypes.data_as(ctypes.c_void_p),
            self.channels,
            self.channels,
            self.w,
            self.a,
            self.most,
        )

    def check(self) -> None:
        """Raises MpError where a family's sums are not numpy's."""
        for name in self.operands:
            self.out[:] = -1
            self.run(name)
            if not (self.out == self.sums).all():
                raise MpError(f"{name} of W{self.w}A{self.a}, {self.channels} channels, is wrong")

    def rates(self, clock: float) -> dict[str, float]:
        """MAC a cycle of each family."""
        found = measure({name: self.timer(name) for name in self.operands}, rounds=9, min_time=0.001)
        macs = self.sums.size * 9 * self.channels
        return {name: macs / found[name].seconds / clock for name in self.operands}

    def timer(self, name: str) -> Timer:
        def run(n: int) -> float:
            start = time.perf_counter()
            self.run(name, n)
            return time.perf_counter() - start

        return Timer(run)


def _words(bits: np.ndarray) -> np.ndarray:
    """uint64: each 64 of the last axis."""
    return np.packbits(bits.reshape(*bits.shape[:-1], -1, 64), axis=-1, bitorder="little").view(np.uint64)[..., 0]


def _split(weights: np.ndarray, w: int) -> np.ndarray:
    """[O, 9, C] to uint64 [O/4, 9, C/64, W, 2, 4]: low nibbles, high nibbles."""
    o, _, c = weights.shape
    words, mask = np.stack([_words(weights >> i & 1) for i in range(w)], -1), np.uint64(0x0F0F0F0F0F0F0F0F)
    halves = np.stack([words & mask, words >> np.uint64(4) & mask], -1)
    return np.ascontiguousarray(halves.reshape(o // 4, 4, 9, c // 64, w, 2).transpose(0, 2, 3, 4, 5, 1))


def _grouped(weights: np.ndarray, group: int, dtype) -> np.ndarray:
    """[O, 9, C] to [O/8, 9, C/group, 8, group]."""
    o, _, c = weights.shape
    return np.ascontiguousarray(weights.astype(dtype).reshape(o // 8, 8, 9, c // group, group).transpose(0, 2, 3, 1, 4))


def _indices(weights: np.ndarray, w: int) -> np.ndarray:
    """[O, 9, C] to uint8 [O/32, 9, C/4, W, 32]: four channels' bits; byte 2l is channel l, 2l + 1 channel 16 + l."""
    o, _, c = weights.shape
    nibbles = np.stack([((weights >> i & 1).reshape(o, 9, c // 4, 4) << np.arange(4)).sum(-1) for i in range(w)], -1)
    return np.ascontiguousarray(
        nibbles.astype(np.uint8).reshape(o // 32, 2, 16, 9, c // 4, w).transpose(0, 3, 4, 5, 2, 1)
    )


def build() -> ctypes.CDLL:
    compiler = shutil.which("gcc") or shutil.which("clang") or shutil.which("cc")
    if not compiler:
        raise MissingDependency("the loops need a C compiler (gcc or clang) on PATH: apt install gcc")
    with tempfile.TemporaryDirectory(prefix="mpcompile-lookup-") as folder:
        out = Path(folder) / "lookup.so"
        subprocess.run(
            [
                compiler,
                "-O3",
                *roofline.flags(TARGET),
                "-mtune=native",
                "-shared",
                "-fPIC",
                str(SOURCE),
                "-o",
                str(out),
            ],
            check=True,
        )
        return ctypes.CDLL(str(out))


def table() -> str:
    """The measurement and what follows from it, as Markdown."""
    library = build()
    cases = [Case(library, w, a, c) for w, a in PAIRS for c in CHANNELS]
    for case in cases:
        case.check()
    clock = roofline.Ceilings.of(measure(roofline.timers(TARGET), rounds=9), TARGET).clock
    lines = [
        f"| | channels | {' | '.join(KINDS)} | lookup over the best other |",
        f"|---|---|{'---|' * (len(KINDS) + 1)}",
    ]
    ahead: dict[tuple[int, int], list[float]] = {}
    for case in cases:
        rates = case.rates(clock)
        ratio = rates["lookup"] / max(r for n, r in rates.items() if n != "lookup")
        ahead.setdefault((case.w, case.a), []).append(ratio)
        cells = [f"{rates[n]:.0f}" if n in rates else "may overflow" for n in KINDS]
        lines.append(f"| W{case.w}A{case.a} | {case.channels} | {' | '.join(cells)} | {ratio:.2f} |")
    worth = [f"W{w}A{a}" for (w, a), ratios in ahead.items() if min(ratios) >= WORTH]
    where = f"for {', '.join(worth)}" if worth else "nowhere"
    return (
        f"MAC a cycle of inner loops on one core of {cpu.name()}, {time.strftime('%Y-%m-%d')}, "
        f"built for {TARGET} (AVX2, no\n"
        f"VNNI): one row of {PIXELS} pixels of a 3×3 layer with as many input as output channels, operands in the caches,\n"
        f"conversions of the row's operands (tables, widening) included. Written by `python -m benchmarks.lookup`.\n\n"
        + "\n".join(lines)
        + f"\n\n`lookup` is ahead of both others, at every number of channels, by {WORTH - 1:.0%} or more: {where}.\n"
    )


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.lookup", description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=RESULT, help="the Markdown file (default: %(default)s)")
    args = parser.parse_args()
    try:
        text = table()
    except MpError as error:
        complain(str(error))
        return error.exit_code
    args.output.parent.mkdir(parents=True, exist_ok=True)
    args.output.write_text(text)
    print(text + f"written to {args.output}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
