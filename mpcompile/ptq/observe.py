"""Runs the float network over the calibration inputs and writes down what its tensors hold."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import onnx

from mpcompile.errors import ModelError
from mpcompile.latency import onnxruntime
from mpcompile.ptq.calibration import Arrays, Calibration
from mpcompile.ptq.float_model import FloatModel
from mpcompile.ptq.histogram import Histogram

AT_ONCE = 16
"""Samples that are run together."""
Progress = Callable[[str, int, int], None]
"""(what, done, total)"""


def observe(
    model: FloatModel, samples: Calibration, tensors: Sequence[str], threads: int, tell: Progress
) -> dict[str, Histogram]:
    """By tensor. Two passes: ends first, then what lies between them. Raises ModelError where a tensor is not finite."""
    run = runner(model, tensors, threads)
    ends: dict[str, tuple[float, float]] = {}
    done = 0
    for batch in samples.batches(AT_ONCE):
        found = run(batch)
        for t in tensors:
            low, high = float(found[t].min()), float(found[t].max())
            if not np.isfinite([low, high]).all():
                raise ModelError(f"{model.path}: on the calibration inputs {t} is not finite")
            before = ends.get(t, (low, high))
            ends[t] = min(low, before[0]), max(high, before[1])
        done += len(next(iter(batch.values())))
        tell("calibrating", done, 2 * samples.count)
    histograms = {t: Histogram(*ends[t]) for t in tensors}
    for batch in samples.batches(AT_ONCE):
        found = run(batch)
        for t, histogram in histograms.items():
            histogram.add(found[t])
        done += len(next(iter(batch.values())))
        tell("calibrating", done, 2 * samples.count)
    return histograms


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
