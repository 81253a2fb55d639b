"""A module whose layers' weights and inputs have a choice of bits: what a search steps on."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor, nn

from mpcompile.errors import UsageError
from mpcompile.search.layers import BitChoice, Network
from mpcompile.search.quantizers import ACTIVATIONS, WEIGHTS
from mpcompile.search.trace.plan import Plan, plan
from mpcompile.search.trace.quantized import (
    INPUT,
    InputQuantization,
    Passing,
    TracedLayer,
    WeightQuantization,
    attach_weight,
    detach,
    parametrizations_of,
)
from mpcompile.search.trace.zero_point import ZeroPoint

ENDS = 8
"""Bits of the first and the last layer and of what they read, where nothing else is said; and of what functions read."""


@dataclass(frozen=True)
class Knobs:
    """What is chosen between. `keep`: layer → the bits that it has, its input too, in place of a choice."""

    weights: tuple[int, ...] = (1, 2, 3, 4, 8)
    activations: tuple[int, ...] = (1, 2, 3, 4, 8)
    weight: str = "edmips"
    activation: str = "pact"
    keep: Mapping[str, int] | None = None


def kept(planned: Plan, globs: Mapping[str, int] | None) -> dict[str, int]:
    """Layer → bits, of `globs` (name with * and ? → bits); None: the first and the last layer at 8. Raises UsageError at a
    glob that names no layer, and at bits that there are not."""
    if globs is None:
        return {planned.first: ENDS, planned.last: ENDS}
    found: dict[str, int] = {}
    for glob, bits in globs.items():
        if type(bits) is not int or not 1 <= bits <= 8:
            raise UsageError(f"keep: {glob} must have bits from 1 to 8, not {bits!r}")
        names = [name for name in planned.layers if fnmatchcase(name, glob)]
        if not names:
            why = next((f" ({name} {why})" for name, why in planned.floats.items() if fnmatchcase(name, glob)), "")
            raise UsageError(f"keep: {glob} is no layer that is quantized{why}: {', '.join(planned.layers)} are")
        found |= dict.fromkeys(names, bits)
    return found


class Traced(Network):
    """`model`: a copy of the module, with choices attached to the layers of `planned`."""

    def __init__(self, model: nn.Module, planned: Plan, example: Tensor, knobs: Knobs = Knobs()):
        super().__init__()
        self.model, self.planned, self.passing = copy.deepcopy(model), planned, Passing()
        self._title = type(model).__name__
        self.input_shape, self.classes = tuple(example.shape[1:]), planned.classes
        fixed = kept(planned, knobs.keep)
        inputs: dict[str, BitChoice] = {}
        modules = dict(self.model.named_modules())
        self._layers: dict[str, TracedLayer] = {}
        for name, layer in planned.layers.items():
            bits = (fixed[name],) if name in fixed else tuple(sorted(knobs.weights))
            choice = BitChoice(f"{name or 'layer'}.weight", WEIGHTS[knobs.weight](bits))
            self._layers[name or "layer"] = TracedLayer(name or "layer", modules[name], choice)
            if layer.tensor not in inputs:
                readers = [
                    fixed[n] for n, other in planned.layers.items() if other.tensor == layer.tensor and n in fixed
                ]
                codes = (max(readers),) if readers else tuple(sorted(knobs.activations))
                kind = ZeroPoint if planned.signed[layer.tensor] else ACTIVATIONS[knobs.activation]
                inputs[layer.tensor] = BitChoice(layer.tensor, kind(codes))
                modules[name].add_module(INPUT, inputs[layer.tensor])
            attach_weight(modules[name], choice, self.passing)
            self._read(modules[name], inputs[layer.tensor])
        for name, tensor in planned.functions.items():
            choice = BitChoice(tensor, ZeroPoint((ENDS,)))
            modules[name].add_module(INPUT, choice)
            self._read(modules[name], choice)

    def _read(self, module: nn.Module, choice: BitChoice) -> None:
        """`module` reads what `choice` quantizes."""
        module.register_forward_pre_hook(InputQuantization(choice, self.passing))
        self.passing.readers[choice] = self.passing.readers.get(choice, 0) + 1

    def forward(self, x: Tensor) -> Any:
        self.passing.quantized.clear()
        try:
            return self.model(x)
        finally:
            self.passing.quantized.clear()

    @property
    def title(self) -> str:
        return self._title

    # -- what the search asks -----------------------------------------------------------------------
    def layers(self) -> Iterator[TracedLayer]:
        return iter(self._layers.values())

    def reads(self) -> dict[str, str]:
        return {name or "layer": layer.tensor for name, layer in self.planned.layers.items()}

    def macs(self) -> dict[str, int]:
        return {name or "layer": layer.macs for name, layer in self.planned.layers.items()}

    @torch.no_grad()
    def start_clips(self, samples: Tensor) -> None:
        """In evaluation mode: a module that was trained before keeps its statistics."""
        before = {id(k): (k.bits, k.probs) for k in self.choices()}
        training = self.training
        self.eval()
        self.assign(None)
        self.passing.starting = True
        try:
            self(samples)
        finally:
            self.passing.starting = False
            self.train(training)
            for k in self.choices():
                k.bits, k.probs = before[id(k)]

    # -- what comes out -------------------------------------------------------------------------------
    def plain(self) -> nn.Module:
        """The module at the bits that are set, in evaluation mode, needing nothing of the search but its quantizers: the
        weights are the quantized ones, inputs are quantized by hooks."""
        made = copy.deepcopy(self.model).eval()
        detach(made)
        return made


def trace(model: nn.Module, example: Tensor, knobs: Knobs = Knobs(), sample: Tensor | None = None) -> Traced:
    """`model`, searchable; see plan() for what is raised, and for `sample`."""
    return Traced(model, plan(model, example, sample), example, knobs)


def weights_of(network: Traced) -> Sequence[tuple[TracedLayer, WeightQuantization]]:
    """Each layer with what quantizes it."""
    found = []
    for layer in network.layers():
        attached = parametrizations_of(layer.module)
        found.append((layer, next(p for p in attached if isinstance(p, WeightQuantization))))
    return found
