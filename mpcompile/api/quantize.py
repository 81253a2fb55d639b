"""`mp.quantize`: a float ONNX file to a quantized one, after training, with what measures its latency."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mpcompile.errors import UsageError
from mpcompile.files import check_writable
from mpcompile.ir.bits import BitCandidates, BitPair
from mpcompile.ptq.budgets import Budget, parse_budget, parse_mean
from mpcompile.ptq.kept import parse_keep
from mpcompile.ptq.ranges import METHODS
from mpcompile.targets import Target

if TYPE_CHECKING:
    import numpy as np

    from mpcompile.latency.table import LatencyTable
    from mpcompile.ptq.observe import Progress
    from mpcompile.ptq.result import Quantized
    from mpcompile.remote.pool import DevicePool


def quantize(
    model: str | os.PathLike,
    calibration: str | os.PathLike | np.ndarray | Mapping[str, np.ndarray],
    output: str | os.PathLike,
    *,
    bits: str | BitPair | None = None,
    latency: str | None = None,
    size: str | None = None,
    bitops: str | None = None,
    mean_bits: float | None = None,
    candidates: str | BitCandidates = "w23468a23468",
    keep: Mapping[str, str | int] | None = None,
    target: str | os.PathLike | Target = "native",
    table: str | os.PathLike | LatencyTable | None = None,
    shapes: Mapping[str, Sequence[int]] | None = None,
    ranges: str = "mse",
    percentile: float = 99.99,
    loss: str = "mse",
    samples: int = 256,
    judged: int = 32,
    correct_bias: bool = True,
    rounding: str = "gptq",
    seed: int = 0,
    threads: int | None = None,
    rounds: int = 11,
    tracker: str | None = None,
    key: str | None = None,
    pool: DevicePool | None = None,
    progress: Progress | None = None,
) -> Quantized:
    """Quantizes the float32 ONNX file `model` after training and writes `output`, a QONNX file that `compile` takes.

    calibration: typical inputs, by name, or one array, or the path of an .npz or .npy file or of a folder of such; samples
    along the first axis. bits: "w4a8" of all layers; or budgets, for which each layer gets its own of `candidates`:
    `latency` ("12 ms") on `target`, `size` of the weights ("800 KiB"), `bitops` ("2 GBitOps"), each also "w4a4", for what
    that uniform network takes, and `mean_bits`. keep: layer, or a pattern, → 8, "w4a8" or "float"; without it the first and
    the last layer keep 8 bits. table: a latency table, or the file of one, instead of measuring; without it, as `profile`
    measures on this machine, on the devices of `key` that `tracker` has, or on those of `pool`; where this machine is not
    such a board, what its cost model expects. shapes: input → its shape, batch in front, where the file leaves sizes open.
    ranges: "mse", "percentile" (of `percentile` percent) or "minmax". loss: "mse" or "kl", by which layers are judged, on
    `judged` of the `samples`. rounding: of weights, to the "nearest", or by "gptq", so that those that follow make up for
    each one's error. progress(what, done, total).

    Raises UsageError, ModelError, TargetError, MissingDependency, each with one line; nothing is written then.
    """
    budgets = _budgets(bits, latency, size, bitops, mean_bits)
    if ranges not in METHODS:
        raise UsageError(f"ranges {ranges!r}: {', '.join(METHODS)} would be accepted")
    if not 50 < percentile <= 100:
        raise UsageError(f"a percentile of {percentile:g}; more than 50, up to 100, would be accepted")
    if samples < 1 or judged < 1:
        raise UsageError(f"samples must be 1 or more, not {min(samples, judged)}")
    check_writable(output)
    if os.path.realpath(model) == os.path.realpath(output):
        raise UsageError(f"cannot write {output}: it is the model itself")
    from mpcompile.api.latencies import open_latencies
    from mpcompile.ptq.calibration import read_calibration
    from mpcompile.ptq.float_model import read_float
    from mpcompile.ptq.rounding import ROUNDINGS
    from mpcompile.ptq.run import Options
    from mpcompile.ptq.run import quantize as run
    from mpcompile.ptq.sensitivity import LOSSES

    if rounding not in ROUNDINGS:
        raise UsageError(f"rounding {rounding!r}: {', '.join(ROUNDINGS)} would be accepted")
    if loss not in LOSSES:
        raise UsageError(f"loss {loss!r}: {', '.join(LOSSES)} would be accepted")
    options = Options(
        BitPair.parse(bits) if isinstance(bits, str) else bits,
        budgets,
        BitCandidates.parse(candidates) if isinstance(candidates, str) else candidates,
        {name: parse_keep(value) for name, value in (keep or {}).items()},
        ranges,
        percentile,
        loss,
        samples,
        judged,
        correct_bias,
        rounding,
        seed,
    )
    read = read_float(model, shapes)
    found = read_calibration(calibration, read)
    tell = progress or (lambda what, done, total: None)
    if not any(b.kind == "latency" for b in budgets):
        return run(read, found, Path(output), options, None, tell)
    with open_latencies(target, table, f"{output}.cells", threads, rounds, tracker, key, pool) as latencies:
        return run(read, found, Path(output), options, latencies, tell)


def _budgets(bits, latency, size, bitops, mean_bits) -> tuple[Budget, ...]:
    """Raises UsageError where there is none, or one beside `bits`."""
    given = {"latency": latency, "size": size, "bitops": bitops}
    budgets = [parse_budget(kind, text) for kind, text in given.items() if text is not None]
    if mean_bits is not None:
        budgets.append(parse_mean(mean_bits))
    if (bits is None) == (not budgets):
        what = "bits and a budget" if budgets else "neither bits nor a budget"
        raise UsageError(
            f"{what}: either bits for all layers, or a latency, size, BitOps or mean bits would be accepted"
        )
    return tuple(budgets)
