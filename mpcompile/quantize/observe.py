"""Runs the float network over the calibration inputs and writes down what its tensors hold."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import onnx

from mpcompile.errors import ModelError
from mpcompile.latency import onnxruntime
from mpcompile.quantize.calibration import Arrays, Calibration
from mpcompile.quantize.float_model import FloatModel
from mpcompile.quantize.histogram import Histogram

AT_ONCE = 16
"""Samples that are run together."""
Progress = Callable[[str, int, int], None]
"""(what, done, total)"""


@dataclass(frozen=True)
class Observed:
    """Of each tensor that was asked for its histogram, of others their mean over all samples, without batch axis."""

    histograms: dict[str, Histogram]
    means: dict[str, np.ndarray]


def observe(
    model: FloatModel,
    samples: Calibration,
    tensors: Sequence[str],
    averaged: Sequence[str],
    threads: int,
    tell: Progress,
) -> Observed:
    """Two passes: ends and means first, then what lies between the ends. Raises ModelError where a tensor is not
    finite."""
    wanted = list(dict.fromkeys([*tensors, *averaged]))
    run = runner(model, wanted, threads)
    ends: dict[str, tuple[float, float]] = {}
    sums: dict[str, np.ndarray] = {}
    done = 0
    for batch in samples.batches(AT_ONCE):
        found = run(batch)
        for t in tensors:
            low, high = float(found[t].min()), float(found[t].max())
            if not np.isfinite([low, high]).all():
                raise ModelError(f"{model.path}: on the calibration inputs {t} is not finite")
            before = ends.get(t, (low, high))
            ends[t] = min(low, before[0]), max(high, before[1])
        for t in averaged:
            total = found[t].sum(0, dtype=np.float64)
            sums[t] = sums[t] + total if t in sums else total
        done += len(next(iter(batch.values())))
        tell("calibrating", done, 2 * samples.count)
    histograms = {t: Histogram(*ends[t]) for t in tensors}
    for batch in samples.batches(AT_ONCE):
        found = run(batch)
        for t, histogram in histograms.items():
            histogram.add(found[t])
        done += len(next(iter(batch.values())))
        tell("calibrating", done, 2 * samples.count)
    count = done // 2
    return Observed(histograms, {t: s / count for t, s in sums.items()})


def runner(model: FloatModel, wanted: Sequence[str], threads: int) -> Callable[[Arrays], Arrays]:
    """The float network in ONNX Runtime, as what gives the tensors `wanted` of a batch."""
    proto = onnx.ModelProto()
    proto.CopyFrom(model.proto)
    there = {o.name for o in proto.graph.output} | set(model.inputs)
    proto.graph.output.extend(onnx.ValueInfoProto(name=t) for t in wanted if t not in there)
    session = onnxruntime.session(proto.SerializeToString(), threads)
    asked = [t for t in wanted if t not in model.inputs]

    def run(batch: Arrays) -> Arrays:
        found = dict(zip(asked, map(np.asarray, session.run(asked, batch)))) if asked else {}
        return found | {t: batch[t] for t in wanted if t in model.inputs}

    return run
