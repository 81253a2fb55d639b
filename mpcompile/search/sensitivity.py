"""What each choice of bits loses by itself, all else without quantization: measured, or by a second-order model.

| kind    | loss of δ = Q_b(x) − x, for weights or a tensor x of n numbers                                              |
|---------|-------------------------------------------------------------------------------------------------------------|
| loss    | L(x + δ) − L(x), measured                                                                                   |
| hessian | ½·Tr(H)/n·‖δ‖², Tr(H) by Hutchinson's vᵀHv with v of ±1 (HAWQ-V2, NeurIPS 2020, without its halves)         |
| fisher  | ½·Σ (g·δ)² with the gradient of each sample, g = ∂L/∂x                                                      |

For a tensor both are means over the samples.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from mpcompile.allocate.wiring import Sensitivity
from mpcompile.search.judge import Judge
from mpcompile.search.layers import BitChoice, Network
from mpcompile.search.loop import draw

Progress = Callable[[int, int], None]


def measure(
    network: Network, judge: Judge, kind: str, probes: int, seed: int, tell: Progress, known: dict | None = None,
    keep: Callable[[dict], None] = lambda found: None,
) -> Sensitivity:  # fmt: skip
    """Loss of every candidate of every choice, also of those that have only one, for which it is 0. `known`: what a
    measurement that was broken off had found, by choice; `keep` is handed it after each choice."""
    names = {"weights": network.weights, "tensors": network.tensors}
    found: dict[str, dict[str, dict[int, float]]] = {kind_: dict(part) for kind_, part in (known or {}).items()}
    total = sum(map(len, names.values()))
    done = 0
    network.assign(None)
    base = judge.now() if kind == "loss" else 0.0
    for what, choices in names.items():
        part = found.setdefault(what, {})
        for name, choice in choices.items():
            if name not in part:
                if not choice.searched:
                    part[name] = dict.fromkeys(choice.candidates, 0.0)
                elif kind == "loss":
                    part[name] = _measured(judge, choice, base)
                else:
                    part[name] = _modelled(network, judge, choice, kind, probes, seed)
                keep(found)
            done += 1
            tell(done, total)
    return Sensitivity(found["weights"], found["tensors"])


def _measured(judge: Judge, choice: BitChoice, base: float) -> dict[int, float]:
    found = {}
    for bits in choice.candidates:
        choice.set(bits)
        found[bits] = judge.now() - base
    choice.set(None)
    return found


def _modelled(network: Network, judge: Judge, choice: BitChoice, kind: str, probes: int, seed: int) -> dict[int, float]:
    """Of each batch (each sample, for the gradients of single samples), then the mean."""
    total = dict.fromkeys(choice.candidates, 0.0)
    training = network.training
    network.eval()
    count = 0
    for at, (inputs, targets) in enumerate(judge.batches):
        pieces = zip(_single(inputs), _single(targets)) if kind == "fisher" else [(inputs, targets)]
        for i, (x, y) in enumerate(pieces):
            size = len(x)
            for bits, value in _of(network, judge, choice, kind, probes, (seed, at, i), x, y).items():
                total[bits] += size * value
            count += size
    network.train(training)
    return {bits: value / count for bits, value in total.items()}


def _single(part: Any) -> list[Any]:
    return [part[i : i + 1] for i in range(len(part))]


def _of(network, judge: Judge, choice: BitChoice, kind: str, probes: int, seed, inputs, targets) -> dict[int, float]:
    """Of one batch, whose loss is a mean over its samples."""
    seen: list[Tensor] = []
    moved: list[Tensor] = []

    def study(x: Tensor) -> Tensor:
        seen.append(x.detach())
        moved.append(torch.zeros_like(x).requires_grad_())
        return choice.quantizer.real(x) + moved[-1]

    choice.study = study
    try:
        with torch.enable_grad():
            loss = judge.loss(network(inputs), targets, inputs)
            (gradient,) = torch.autograd.grad(loss, moved[0], create_graph=kind == "hessian")
            trace = 0.0
            if kind == "hessian":
                generator = draw(*seed, choice.name)
                for _ in range(probes):
                    v = torch.randint(0, 2, gradient.shape, generator=generator).to(gradient) * 2 - 1
                    (product,) = torch.autograd.grad(gradient, moved[0], v, retain_graph=True, allow_unused=True)
                    trace += 0.0 if product is None else float((v * product).sum()) / probes
    finally:
        choice.study = None
    x = seen[0]
    with torch.no_grad():
        real = choice.quantizer.real(x)
        found = {}
        for bits in choice.candidates:
            off = choice.quantizer.fake(x, bits) - real
            if (
                kind == "hessian"
            ):  # of a mean over the batch: its trace is a mean of the samples' traces over ‖δ‖² of all
                found[bits] = 0.5 * max(0.0, trace) / x.numel() * float(off.square().sum())
            else:
                found[bits] = 0.5 * float((gradient * off).square().sum())
        return found
