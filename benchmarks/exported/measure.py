"""A bundle against ONNX Runtime on the file that it was compiled from: one thread each, in turn, round by round."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import numpy as np

import mpcompile as mp
from mpcompile.api.verify import fused
from mpcompile.ir.graph import FloatOp

ROUND = 0.1
"""Seconds of each in a round, about."""


def measure(name: str, path: Path, shape: tuple[int, ...], rounds: int) -> dict:
    """A row: milliseconds of both, their ratio, operators that run in float, whether the bundle equals the reference."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    x = np.random.default_rng(1).standard_normal((1, *shape), np.float32)
    floats = [n for n in fused(path).nodes if isinstance(n, FloatOp)]
    with tempfile.TemporaryDirectory() as folder:
        made = mp.compile(path, output=Path(folder) / "network.mpc")
        equal = mp.verify(path, made, {"x": x}, threads=1).equal
        with mp.open_bundle(made, 1) as bundle:
            runs: list[Callable[[], object]] = [lambda: bundle.run({"x": x}), lambda: session.run(None, {"x": x})]
            ours, theirs = in_turn(runs, rounds)
    return {
        "network": name,
        "input": list(shape),
        "ms": 1e3 * ours,
        "onnxruntime_ms": 1e3 * theirs,
        "ratio": theirs / ours,
        "in_float": sorted(n.op_type for n in floats),
        "equal": equal,
    }


def in_turn(runs: list[Callable[[], object]], rounds: int) -> list[float]:
    """Median seconds of a call of each."""
    times: list[list[float]] = [[] for _ in runs]
    counts = [max(1, round(ROUND / _seconds(run, 1))) for run in runs]
    for _ in range(rounds):
        for run, count, kept in zip(runs, counts, times):
            kept.append(_seconds(run, count))
    return [median(kept) for kept in times]


def _seconds(run: Callable[[], object], count: int) -> float:
    began = time.perf_counter()
    for _ in range(count):
        run()
    return (time.perf_counter() - began) / count


def table(rows: list[dict], header: bool) -> str:
    """Markdown."""
    lines = ["| network | input | ms | ONNX Runtime int8 / mpcompile | in float | exact |", "|---|---|---|---|---|---|"]
    made = [
        f"| {r['network']} | {'×'.join(map(str, r['input']))} | {r['ms']:.2f} | {r['ratio']:.2f} | "
        f"{', '.join(r['in_float']) or 'none'} | {'yes' if r['equal'] else 'NO'} |"
        for r in rows
    ]
    return "\n".join([*(lines if header else []), *made])
