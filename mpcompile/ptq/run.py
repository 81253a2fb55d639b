"""A float model to a quantized one, from the first read to the written file."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np
import onnx

from mpcompile.allocate import costs
from mpcompile.allocate.program import Limit, bits_of_tensors, choose, said
from mpcompile.errors import UsageError
from mpcompile.files import atomic_path
from mpcompile.ir.bits import BitCandidates, BitPair
from mpcompile.latency.progress import Progress as Counted
from mpcompile.latency.table import LatencyTable
from mpcompile.ptq import kept, sensitivity
from mpcompile.ptq.budgets import Budget
from mpcompile.ptq.calibration import Calibration
from mpcompile.ptq.float_model import FloatModel
from mpcompile.ptq.grids import Grid
from mpcompile.ptq.observe import Progress, observe
from mpcompile.ptq.ranges import activation_grid, weight_grid
from mpcompile.ptq.result import Cost, Quantized, QuantizedLayer
from mpcompile.ptq.rewire import quantized_name
from mpcompile.ptq.rounding import biases, settle
from mpcompile.ptq.simulate import Setting, Simulated, Simulation
from mpcompile.ptq.stages import Stages, few_enough
from mpcompile.ptq.supported import supported_places
from mpcompile.ptq.write import QuantizedWeights, to_qonnx
from mpcompile.temporary import temporary_folder

HELPER_BITS = 8
CANDIDATES = BitCandidates((2, 3, 4, 6, 8), (2, 3, 4, 6, 8))


class Latencies(Protocol):
    """What gives latency tables: measured, or expected by a board's cost model (`modelled`)."""

    @property
    def modelled(self) -> bool: ...

    def table(self, model: Path, bits: BitCandidates, progress: Counted) -> LatencyTable:
        """Of a quantized network."""
        ...


@dataclass(frozen=True)
class Options:
    """bits: of all layers, or None where `budgets` choose among `candidates`. keep: layers, by name or pattern, and the
    bits that they keep, None for float. ranges: a method of ranges.METHODS; `percentile` in percent. loss: of LOSSES,
    what a layer's bits are judged by, on `judged` samples."""

    bits: BitPair | None = None
    budgets: tuple[Budget, ...] = ()
    candidates: BitCandidates = CANDIDATES
    keep: Mapping[str, BitPair | None] = field(default_factory=dict)
    ranges: str = "mse"
    percentile: float = 99.99
    loss: str = "mse"
    samples: int = 256
    judged: int = 32
    correct_bias: bool = True
    rounding: str = "gptq"
    seed: int = 0


def quantize(
    model: FloatModel, samples: Calibration, output: Path, options: Options, latencies: Latencies | None, tell: Progress
) -> Quantized:
    """Writes the quantized network, whole or not at all. Raises UsageError and ModelError with one line."""
    made = _Work(model, samples.some(options.samples, options.seed), options, tell)
    assignment, found, judged = made.assignment(latencies)
    return made.write(assignment, output, found, judged)


class _Work:
    def __init__(self, model: FloatModel, samples: Calibration, options: Options, tell: Progress):
        self.model, self.samples, self.options, self.tell = model, samples, options, tell
        self.threads = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        tell("reading", 0, 1)
        every, _ = supported_places(model, {})
        keep = kept.matching(options.keep, list(every.layers))
        left_float = {k: "it is kept in float" for k, pair in keep.items() if pair is None}
        self.places, self.in_float = supported_places(model, left_float) if left_float else (every, _)
        if not self.places.layers:
            why = next(iter(self.in_float.items()), None)
            raise UsageError(
                f"{model.path} has no layer that can be quantized"
                + (f": node {why[0]} stays float, {why[1]}" if why else "")
            )
        self.keep = {k: pair for k, pair in keep.items() if pair is not None}
        self.nodes = {n.name: n for n in model.proto.graph.node}
        tensors = [*dict.fromkeys([*self.places.tensors, *self.places.helpers])]
        self.seen = observe(model, self.samples, tensors, self.threads, tell)
        self.reach = {t: max(abs(h.low), abs(h.high)) for t, h in self.seen.items()}
        self._grids: dict[tuple[str, int], Grid] = {}
        self._weights: dict[tuple[str, int], QuantizedWeights] = {}

    # -- grids and weights at any bits ----------------------------------------------------------------
    def grid(self, tensor: str, bits: int) -> Grid:
        if (tensor, bits) not in self._grids:
            o = self.options
            self._grids[tensor, bits] = activation_grid(self.seen[tensor], bits, o.ranges, o.percentile / 100)
        return self._grids[tensor, bits]

    def weights(self, layer: str, bits: int) -> QuantizedWeights:
        if (layer, bits) not in self._weights:
            found = self.places.layers[layer]
            values = self.model.constants[found.weight]
            grid = weight_grid(values, found.axis, bits, self.options.ranges)
            self._weights[layer, bits] = QuantizedWeights(grid(values), grid)
        return self._weights[layer, bits]

    # -- bits -----------------------------------------------------------------------------------------
    def assignment(self, latencies: Latencies | None):
        """(layer → bits, what the budgets are and what it costs, the sensitivity or None)."""
        o, places = self.options, self.places
        if o.bits is not None:
            return kept.uniform(kept.choices(places, self.keep, [o.bits]), o.bits), [], None
        pairs = [*o.candidates, *(b.bits for b in o.budgets if b.bits and b.bits not in o.candidates)]
        choices = kept.choices(places, self.keep, pairs)
        limits = [self._limit(budget, choices, latencies) for budget in o.budgets]
        judged = self._judge(choices)
        self.tell("choosing", 0, 1)
        chosen = choose(places, choices, judged, limits)
        self.tell("choosing", 1, 1)
        modelled = latencies is not None and latencies.modelled
        found = [
            Cost(b.kind, m.text, m.amount, m.costs.of(chosen, places), m.costs.unit, modelled and b.kind == "latency")
            for b, m in zip(o.budgets, limits)
        ]
        return chosen, found, judged

    def _limit(self, budget: Budget, choices: costs.Choices, latencies: Latencies | None) -> Limit:
        if budget.kind == "latency":
            assert latencies is not None, "a budget of latency comes with what gives tables"
            made = self._latency(choices, latencies)
        elif budget.kind == "size":
            made = costs.weight_bytes(self.places, choices, self._beside())
        else:
            made = costs.bitops(self.places, choices)
        amount, text = budget.amount, budget.text
        if budget.bits is not None:
            amount = made.of(kept.uniform(choices, budget.bits), self.places) * (1 + 1e-9)
            text = f"{said(amount, made.unit)} (as {budget.bits} takes)"
        elif budget.kind == "mean":
            free = [k for k, pairs in choices.items() if len(set(pairs)) > 1]
            made.layers = {k: by for k, by in made.layers.items() if k in free}
            amount = budget.amount**2 * sum(self.places.layers[k].macs for k in free)
            text = f"{said(amount, made.unit)} (a mean of {budget.text})"
        else:
            text = budget.text
        return Limit(made, max(amount, 1e-30), text)

    def _latency(self, choices: costs.Choices, latencies: Latencies) -> costs.Costs:
        bits = BitCandidates.of(
            {p.weights for pairs in choices.values() for p in pairs},
            {p.activations for pairs in choices.values() for p in pairs},
        )
        with temporary_folder() as folder:
            path = folder / f"{self.model.path.stem}.w8a8.onnx"
            eight = dict.fromkeys(self.places.layers, BitPair(8, 8))
            onnx.save(self._proto(eight, {}), path)
            table = latencies.table(path, bits, lambda done, total: self.tell("latency table", done, total))
        quantizer = {t: quantized_name(t) for t in self.places.tensors}
        return costs.latency(self.places, choices, table, quantizer)

    def _judge(self, choices: costs.Choices) -> sensitivity.Sensitivity:
        o, places = self.options, self.places
        simulation = Simulation(self.model, places, self.reach, self.threads)
        weights = {
            k: (places.layers[k].weight, {w: self.weights(k, w).values for w in sorted({p.weights for p in pairs})})
            for k, pairs in choices.items()
        }
        grids: dict[str, dict[int, Grid]] = {}
        for tensors in places.tied():
            for t in tensors:
                bits = {p.activations for k in places.readers(t) for p in choices[k]}
                grids[t] = {a: self.grid(t, a) for a in sorted(bits)}
        return sensitivity.measure(simulation, self.samples.some(o.judged, o.seed), weights, grids, o.loss, self.tell)

    def _beside(self) -> int:
        """Bytes of the constants that are no weights of layers."""
        weights = {layer.weight for layer in self.places.layers.values()}
        return sum(a.nbytes for name, a in self.model.constants.items() if name not in weights)

    # -- the file ---------------------------------------------------------------------------------------
    def _rounded(self, assignment: costs.Assignment) -> dict[str, np.ndarray]:
        """Settles the weights of all layers; the biases that are corrected on the way."""
        o, places = self.options, self.places
        constants = biases(self.model, places) if o.correct_bias else {}
        if o.rounding == "nearest" and not constants:
            return {}
        grids, weights = self._settled(assignment)
        some = few_enough(self.samples, self.model, o.seed)
        stages = Stages(Simulated(self.model, places, self.reach), some, Setting(grids, {}), self.threads)
        found = settle(stages, places.layers, weights, constants, o.rounding, self.tell)
        self._weights |= {(k, assignment[k].weights): w for k, w in found.items()}
        return {name: stages.setting.constants[name] for name in constants.values()}

    def _setting(self, assignment: costs.Assignment, constants: Mapping[str, np.ndarray]) -> Setting:
        grids, weights = self._settled(assignment)
        return Setting(grids, {**constants, **{self.places.layers[k].weight: w.values for k, w in weights.items()}})

    def _settled(self, assignment: costs.Assignment) -> tuple[dict[str, Grid], dict[str, QuantizedWeights]]:
        grids = {t: self.grid(t, HELPER_BITS) for t in self.places.helpers}
        grids |= {t: self.grid(t, a) for t, a in bits_of_tensors(self.places, assignment).items()}
        return grids, {k: self.weights(k, p.weights) for k, p in assignment.items()}

    def _proto(self, assignment: costs.Assignment, constants: Mapping[str, np.ndarray]) -> onnx.ModelProto:
        return to_qonnx(self.model, self.places, *self._settled(assignment), constants)

    def write(
        self,
        assignment: Mapping[str, BitPair],
        output: Path,
        found: Sequence[Cost],
        judged: sensitivity.Sensitivity | None,
    ) -> Quantized:
        places = self.places
        constants = self._rounded(assignment)
        proto = self._proto(assignment, constants)
        onnx.checker.check_model(proto)
        simulation = Simulation(self.model, places, self.reach, self.threads)
        self.tell("comparing", 0, 1)
        expected = simulation.run(self.samples, Setting({}, {}))
        got = simulation.run(self.samples, self._setting(assignment, constants))
        self.tell("comparing", 1, 1)
        choices = {k: (p,) for k, p in assignment.items()}
        first, last = expected[0], got[0]
        same = None
        if first.ndim and first.shape[-1] > 1:
            same = float((first.argmax(-1) == last.argmax(-1)).mean())
        result = Quantized(
            Path(output),
            [
                QuantizedLayer(
                    k,
                    layer.op,
                    assignment[k],
                    layer.weights,
                    layer.macs,
                    k in self.keep or k in places.first or k in places.last,
                    judged.weights[k][assignment[k].weights] if judged else None,
                )
                for k, layer in places.layers.items()
            ],
            self.in_float,
            list(found),
            costs.weight_bytes(places, choices, self._beside()).of(assignment, places),
            costs.bitops(places, choices).of(assignment, places),
            sensitivity.output_loss(expected, got, "mse"),
            same,
            self.samples.count,
        )
        with atomic_path(output) as temporary:
            temporary.write_bytes(proto.SerializeToString())
        return result
