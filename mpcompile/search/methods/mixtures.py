"""Strengths of candidate bitwidths, and the mixture that they make: what EBS and EdMIPS share.

    p = softmax((r − λ·c)/τ),  c_i = ∂E[cost]/∂p_i of a choice's candidates, in units of the target

Under a budget λ is not learned but solved for, in each step: E[cost] = target, whatever the number of steps, the scale of
the loss and of the rates. The loss moves r only, and so says where the bits go, not how many there are.

An expectation on the target is not yet an argmax on it. So from `settle` of the search on choices are settled, one after
another, those between whose candidates the cost differs most first: a choice takes its likeliest candidate with which the
others can still reach the target, and λ is solved for again, so that the others make up for what it costs more or less.
The last three are settled together: of all their combinations that come near the target the likeliest.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from itertools import product
from typing import Any

import torch
from torch import Tensor, nn

from mpcompile.search.layers import BitAssignment, BitChoice, Network
from mpcompile.search.loop import search
from mpcompile.search.methods.base import Found, Method, Query
from mpcompile.search.objective import Cost

SETTLED_BY = 0.95
"""Of the search: then all choices are settled, and the weights have some steps left at these bits."""
CLOSE = 5e-4
"""Of the target: as near as λ is solved for."""
LAST = 3
"""Choices that are settled together at the end."""
NEAR = 0.015
"""Of the target: what the last ones may miss it by, where any of their combinations comes so near."""
OPEN = -1


class Mixtures(Method, nn.Module):
    """One vector of strengths for each searched layer and tensor. It changes the network only by what it puts into its
    choices; its parameters are all that is learned of the bits."""

    together = False
    """Whether strengths step on the same images and at once with the weights; else on held-out images, in turn."""
    settled: Tensor
    shifts: Tensor
    multiplier: Tensor

    def __init__(self, network: Network, start: float, settle: float):
        super().__init__()
        self.weights: Mapping[str, BitChoice] = {k: v for k, v in network.weights.items() if v.searched}
        self.tensors: Mapping[str, BitChoice] = {k: v for k, v in network.tensors.items() if v.searched}
        self.choices: list[BitChoice] = [*self.weights.values(), *self.tensors.values()]
        self.settle_from = settle
        self.strengths = nn.ParameterDict(
            {_key(k): nn.Parameter(torch.full((len(k.candidates),), float(start))) for k in self.choices}
        )
        most = max((len(k.candidates) for k in self.choices), default=1)
        self.register_buffer("settled", torch.full((len(self.choices),), OPEN))
        self.register_buffer("shifts", torch.zeros(len(self.choices), most, dtype=torch.float64))
        self.register_buffer("multiplier", torch.full((), float("nan"), dtype=torch.float64))
        """NaN: not solved for yet."""
        self._aim: tuple[Cost, float] | None = None
        self._probs: dict[str, Tensor] = {}

    # -- what the two methods differ in ----------------------------------------------------------------
    @abstractmethod
    def temperature(self, progress: float) -> float:
        """τ after this part of the search."""

    @abstractmethod
    def optimizer(self) -> torch.optim.Optimizer:
        """Of the strengths."""

    @abstractmethod
    def rate_at(self, progress: float) -> float:
        """The optimizer's rate after this part of the search."""

    def noise(self, strength: Tensor, draw: torch.Generator) -> Tensor:
        """Strengths as they are mixed in one step."""
        return strength

    # -- in the loop -----------------------------------------------------------------------------------
    def aim(self, cost: Cost, target: float) -> None:
        """The mixture's expected cost shall be `target` from now on."""
        self._aim = cost, target

    def mix(self, network: Network, progress: float, draw: torch.Generator, *, learn: bool) -> None:
        """Sets every choice for the next forward pass. `progress` 0..1 is how much of the search is over, `draw` the only
        source of chance; `learn`: gradients shall reach the strengths."""
        tau = self.temperature(progress)
        if self._aim and (learn or self.multiplier.isnan()):
            self._land(progress, tau)
        for i, choice in enumerate(self.choices):
            strength, at = self.noise(self.strengths[_key(choice)], draw), int(self.settled[i])
            if at != OPEN:
                probs = torch.zeros_like(strength)
                probs[at] = 1.0
            else:
                probs = torch.softmax((strength - self.shifts[i, : len(strength)].float()) / tau, 0)
            choice.probs = self._probs[choice.name] = probs if learn else probs.detach()

    def cost(self, objective: Cost) -> Tensor:
        """The objective's expected cost of what `mix` set last, a scalar with gradients."""
        return objective.expected(
            {name: self._probs[k.name] for name, k in self.weights.items()},
            {name: self._probs[k.name] for name, k in self.tensors.items()},
        )

    def finish(self) -> None:
        """What is not settled yet is settled, where there is an aim."""
        if self._aim:
            self._land(1.0, self.temperature(1.0))

    @property
    def open(self) -> bool:
        """Whether any choice is not settled yet: else the strengths have nothing to learn."""
        return bool((self.settled == OPEN).any())

    # -- what comes out --------------------------------------------------------------------------------
    def readout(self, network: Network) -> BitAssignment:
        """The bits that the search has come to: of choices that are not settled those that are mixed in most."""
        chosen = {}
        for i, k in enumerate(self.choices):
            strength = self.strengths[_key(k)].detach().double() - self.shifts[i, : len(k.candidates)]
            at = int(self.settled[i])
            chosen[k.name] = k.candidates[int(strength.argmax()) if at == OPEN else at]
        return BitAssignment(
            {name: chosen.get(k.name, k.candidates[-1]) for name, k in network.weights.items()},
            {name: chosen.get(k.name, k.candidates[-1]) for name, k in network.tensors.items()},
        )

    @torch.no_grad()
    def log_probs(self) -> dict[str, dict[str, Tensor]]:
        """ "weights" and "tensors": name → log probability of each candidate [B], the cost left out."""
        return {
            kind: {name: torch.log_softmax(self.strengths[_key(k)], 0) for name, k in choices.items()}
            for kind, choices in (("weights", self.weights), ("tensors", self.tensors))
        }

    def search(self, query: Query) -> Found:
        if query.before:
            query.network.load_state_dict(query.before["network"])
            self.strengths.load_state_dict(query.before["strengths"])
        figures: dict[str, Any] = search(
            query.network, self, query.cost, query.price, query.samples, query.recipe,
            seed=query.seed, loss=query.loss, keeper=query.keeper, show=query.show,
        )  # fmt: skip
        assignment = self.readout(query.network)
        figures["argmax"] = query.cost.of(assignment)
        state = {"network": dict(query.network.state_dict()), "strengths": dict(self.strengths.state_dict())}
        return Found(assignment, self.log_probs(), state, figures)

    # -- on the target -----------------------------------------------------------------------------------
    @torch.no_grad()
    def _land(self, progress: float, tau: float) -> None:
        if not self.choices:
            return
        self._solve(tau)
        due = (progress - self.settle_from) / max(1e-9, SETTLED_BY * (1 - self.settle_from))
        for _ in range(int(len(self.choices) * min(1.0, due) + 1e-9) - int((self.settled != OPEN).sum())):
            if int((self.settled == OPEN).sum()) <= LAST:
                self._settle_rest(tau)
                return
            self._settle_one(tau)
            self._solve(tau)

    def _logits(self) -> Tensor:
        """float64 [choices, candidates] of the strengths; −∞ where there is no such candidate, or another is settled."""
        found = torch.full_like(self.shifts, -torch.inf)
        for i, k in enumerate(self.choices):
            at = int(self.settled[i])
            if at == OPEN:
                found[i, : len(k.candidates)] = self.strengths[_key(k)].double()
            else:
                found[i, at] = 0.0
        return found

    def _expected(self, probs: Tensor) -> Tensor:
        """Of the aim's cost over its target, of probabilities [choices, candidates]."""
        assert self._aim is not None
        cost, target = self._aim
        rows = {k.name: probs[i, : len(k.candidates)] for i, k in enumerate(self.choices)}
        weights, tensors = ({n: rows[k.name] for n, k in part.items()} for part in (self.weights, self.tensors))
        return cost.expected(weights, tensors) / target

    def _slopes(self, probs: Tensor) -> Tensor:
        """∂(cost/target)/∂probs, probs' shape."""
        with torch.enable_grad():
            leaf = probs.detach().requires_grad_()
            expected = self._expected(leaf)
            if not expected.requires_grad:
                return torch.zeros_like(probs)
            (found,) = torch.autograd.grad(expected, leaf)
        return found

    def _solve(self, tau: float) -> None:
        """λ, with slopes as they are at the mixture of before; where no λ reaches the target, one that is far out."""
        logits = self._logits()
        slopes = self._slopes(torch.softmax((logits - self.shifts) / tau, 1))

        def off(at: float) -> float:
            return float(self._expected(torch.softmax((logits - at * slopes) / tau, 1))) - 1

        start = 0.0 if self.multiplier.isnan() else float(self.multiplier)
        found = root(off, start, tau)
        self.multiplier.fill_(found)
        self.shifts.copy_(found * slopes)

    def _settle_one(self, tau: float) -> None:
        logits = self._logits()
        probs = torch.softmax((logits - self.shifts) / tau, 1)
        slopes, there = self._slopes(probs), logits.isfinite()
        spread = slopes.masked_fill(~there, -torch.inf).amax(1) - slopes.masked_fill(~there, torch.inf).amin(1)
        spread[self.settled != OPEN] = -1.0
        choice = int(spread.argmax())
        best, least_off = OPEN, float("inf")
        for candidate in probs[choice].argsort(descending=True).tolist():
            if not there[choice, candidate]:
                continue
            one = there.clone()
            one[choice] = False
            one[choice, candidate] = True
            low, high = (self._expected(_extreme(sign * slopes, one)).item() for sign in (1, -1))
            off = max(0.0, low - 1, 1 - high)
            if off < least_off:
                best, least_off = candidate, off
            if off == 0:
                break
        self.settled[choice] = best

    def _settle_rest(self, tau: float) -> None:
        logits = self._logits()
        likely = torch.log_softmax((logits - self.shifts) / tau, 1)
        rows = (self.settled == OPEN).nonzero().flatten().tolist()
        probs = (self.settled[:, None] == torch.arange(logits.shape[1])).double()
        found = []
        for columns in product(*(logits[row].isfinite().nonzero().flatten().tolist() for row in rows)):
            probs[rows] = 0.0
            probs[rows, columns] = 1.0
            off = abs(self._expected(probs).item() - 1)
            chance = float(likely[rows, columns].sum())
            found.append((max(0.0, off - NEAR), -chance, columns))
        self.settled[rows] = torch.tensor(min(found)[2])


def _extreme(slopes: Tensor, there: Tensor) -> Tensor:
    """All probability on each row's least slope, of candidates that are there."""
    at = slopes.masked_fill(~there, torch.inf).argmin(1)
    return torch.zeros_like(slopes).scatter_(1, at[:, None], 1.0)


def root(off, start: float, step: float) -> float:
    """Where `off`, which falls, is 0 within CLOSE: bracketed from `start` by doubled steps, then by the Illinois method.
    Where it never changes its sign: as far out as it still changes."""
    at, value = start, off(start)
    if abs(value) <= CLOSE:
        return at
    direction = 1.0 if value > 0 else -1.0
    other, beyond = at, value
    for _ in range(40):
        moved = other + direction * step
        step *= 2
        before, beyond = beyond, off(moved)
        other = moved
        if abs(beyond) <= CLOSE:
            return other
        if beyond * value < 0:
            break
        if abs(beyond - before) < 1e-12 and step > 1e3:
            return other
        at, value = other, beyond
    else:
        return other
    a, fa, b, fb = at, value, other, beyond
    for _ in range(30):
        middle = (a * fb - b * fa) / (fb - fa)
        found = off(middle)
        if abs(found) <= CLOSE:
            return middle
        if found * fb < 0:
            a, fa = b, fb
        else:
            fa /= 2
        b, fb = middle, found
    return b


def _key(choice: BitChoice) -> str:
    """A name that torch takes for a parameter."""
    return choice.name.replace(".", "/")
