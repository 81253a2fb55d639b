"""A bundle against ONNX Runtime on the file that it was compiled from: one thread each, in turn, round by round."""

from __future__ import annotations

import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from statistics import median

import numpy as np

import mpcompile as mp
from mpcompile.api.verify import fused
from mpcompile.ir.graph import FloatOp

ROUND = 0.1
"""Seconds of each in a round, about."""


def measure(
    name: str, path: Path, x: np.ndarray, rounds: int, against: Path | None = None, bundle: Path | None = None
) -> dict:
    """A row: milliseconds of both on `x` [...], the one input without batch, their ratio, operators that run in float,
    whether the bundle equals the reference and the file was read as the outside witness computes it. ONNX Runtime runs the
    file `against`, `path` itself unless told. What `path` was compiled to stays in `bundle` where that is told."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(against or path), options, providers=["CPUExecutionProvider"])
    theirs_given, given = {session.get_inputs()[0].name: x[None]}, x[None]
    floats = [n for n in fused(path).nodes if isinstance(n, FloatOp)]
    with tempfile.TemporaryDirectory() as folder:
        made = mp.compile(path, output=bundle or Path(folder) / "network.mpc")
        report = mp.verify(path, made, given, threads=1)
        with mp.open_bundle(made, 1) as opened:
            runs: list[Callable[[], object]] = [lambda: opened.run(given), lambda: session.run(None, theirs_given)]
            ours, theirs = in_turn(runs, rounds)
    return {
        "network": name,
        "input": list(x.shape),
        "ms": 1e3 * ours,
        "onnxruntime_ms": 1e3 * theirs,
        "ratio": theirs / ours,
        "in_float": sorted(n.op_type for n in floats),
        "equal": report.equal,
        "read": report.reading.summary,
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


def counted(operators: list[str]) -> str:
    """As "6 Concat, 1 Softmax"."""
    return ", ".join(f"{n} {op}" for op, n in Counter(operators).items()) or "none"


def table(rows: list[dict], header: bool) -> str:
    """Markdown."""
    lines = ["| network | input | ms | ONNX Runtime int8 / mpcompile | in float | exact |", "|---|---|---|---|---|---|"]
    made = [
        f"| {r['network']} | {'×'.join(map(str, r['input']))} | {r['ms']:.2f} | {r['ratio']:.2f} | "
        f"{counted(r['in_float'])} | {'yes' if r['equal'] else 'NO'} |"
        for r in rows
    ]
    return "\n".join([*(lines if header else []), *made])
