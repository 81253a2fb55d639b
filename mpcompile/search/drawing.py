"""Assignments drawn at random, and made to keep a budget."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch

from mpcompile.search.layers import BitAssignment, Network
from mpcompile.search.objective import Cost

TRIES = 50
"""Changes that save nothing, for each choice, until the cheapest bits are taken."""


def drawn(network: Network, draw: torch.Generator) -> BitAssignment:
    """Any candidate for every choice, all equally likely."""

    def pick(choices) -> dict[str, int]:
        return {k: c.candidates[_number(len(c.candidates), draw)] for k, c in choices.items()}

    return BitAssignment(pick(network.weights), pick(network.tensors))


def mixed(one: BitAssignment, other: BitAssignment, share: float, draw: torch.Generator) -> BitAssignment:
    """`one`, each choice with this probability as `other` has it."""

    def part(mine: Mapping[str, int], theirs: Mapping[str, int]) -> dict[str, int]:
        taken = torch.rand(len(mine), generator=draw) < share
        return {k: theirs[k] if take else mine[k] for k, take in zip(mine, taken.tolist())}

    return BitAssignment(part(one.weights, other.weights), part(one.tensors, other.tensors))


def fitted(assignment: BitAssignment, cost: Cost, target: float, draw: torch.Generator) -> BitAssignment:
    """Narrowed at random until it costs `target` at most, then widened at random as far as that goes."""
    knobs = [("weights", k, c) for k, c in cost.w.items() if len(c) > 1]
    knobs += [("tensors", k, c) for k, c in cost.a.items() if len(c) > 1]
    now, spent, left = assignment, cost.of(assignment), TRIES * len(knobs)
    while spent > target and left:
        moved = _moved(now, knobs[_number(len(knobs), draw)], -1)
        left -= 1
        if moved is not None and (then := cost.of(moved)) <= spent:
            now, spent = moved, then
    if spent > target:
        now = cost.cheapest()
    order = [knobs[i] for i in torch.randperm(len(knobs), generator=draw)]
    widened = True
    while widened:
        widened = False
        for knob in order:
            moved = _moved(now, knob, +1)
            if moved is not None and cost.of(moved) <= target:
                now, widened = moved, True
    return now


def _moved(now: BitAssignment, knob: tuple[str, str, tuple[int, ...]], step: int) -> BitAssignment | None:
    """One candidate further up or down; None where there is none."""
    kind, name, candidates = knob
    bits = getattr(now, kind)
    at = candidates.index(bits[name]) + step
    if not 0 <= at < len(candidates):
        return None
    return replace(now, **{kind: {**bits, name: candidates[at]}})


def _number(below: int, draw: torch.Generator) -> int:
    return int(torch.randint(below, (), generator=draw))
