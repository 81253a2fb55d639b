"""The training loop that all search methods share, and the retraining at the chosen bits.

All chance is drawn from generators seeded by (seed, what for, step): the data's order, its augmentation, the method's
noise. So a step depends on the state before it and its number alone, and a run that was killed and resumed gives what
one without a break gives, however often its state was written down.
"""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from mpcompile.latency.progress import PhaseProgress
from mpcompile.search import checkpoint
from mpcompile.search.data import Images
from mpcompile.search.layers import BitAssignment, Network
from mpcompile.search.objective import BudgetPrice, Cost, Price, WeightPrice

if TYPE_CHECKING:
    from mpcompile.search.methods.mixtures import Mixtures


def silent(what: str, done: int, total: int, figures: dict) -> None:
    """Shows nothing."""


def draw(seed: int, *what: str | int) -> torch.Generator:
    """The generator for one purpose."""
    text = "/".join(map(str, (seed, *what))).encode()
    return torch.Generator().manual_seed(int.from_bytes(hashlib.sha256(text).digest()[:8], "big") >> 1)


@dataclass(frozen=True)
class Recipe:
    """Adam, its rate falling from `rate` to 0 along a cosine; `shift`: images moved by up to so many pixels."""

    epochs: float = 10
    batch: int = 64
    rate: float = 2e-3
    decay: float = 1e-4
    shift: int = 2

    def rate_at(self, progress: float) -> float:
        """The rate after this part (0 to 1) of the training."""
        return self.rate * (1 + math.cos(math.pi * progress)) / 2


@dataclass(frozen=True)
class SearchRecipe(Recipe):
    """`warmup`: epochs before the strengths move; `held_out`: the share of the images that they are learned from."""

    warmup: float = 1
    held_out: float = 0.5


class Samples(Protocol):
    """What is trained with. Raises MpError's subclasses where a sample cannot be read."""

    def __len__(self) -> int: ...

    def batch(self, index: Tensor, shift: int, draw: torch.Generator) -> tuple[Any, Any]:
        """Inputs and targets of these samples; `draw` is the only source of chance, `shift` for images."""
        ...

    def split(self, share: float, seed: int) -> tuple[Samples, Samples]:
        """Two disjoint parts, the second with this share, drawn by `seed`; neither is empty."""
        ...


def cross_entropy(outputs: Tensor, targets: Tensor, inputs: Any = None) -> Tensor:
    """Of logits [N, C] and labels [N]."""
    return nn.functional.cross_entropy(outputs, targets)


class Batches:
    """Batch number `step` of an endless, shuffled, shifted pass over samples: inputs and targets."""

    def __init__(self, images: Samples, recipe: Recipe, seed: int, name: str):
        self.images, self.recipe, self.seed, self.name = images, recipe, seed, name
        whole, rest = divmod(len(images), recipe.batch)
        self.each = max(1, whole + (rest > 1))
        """Batches of an epoch; a single image left over, of which BatchNorm knows no variance, goes with the one
        before."""
        self._order: tuple[int, list[Tensor]] = (-1, [])

    def __getitem__(self, step: int) -> tuple[Any, Any]:
        epoch, at = divmod(step, self.each)
        if self._order[0] != epoch:
            order = torch.randperm(len(self.images), generator=draw(self.seed, self.name, "order", epoch))
            size = self.recipe.batch
            ends = [*range(size, size * self.each, size), len(order)]
            self._order = epoch, [order[a:b] for a, b in zip([0, *ends], ends)]
        index = self._order[1][at]
        return self.images.batch(index, self.recipe.shift, draw(self.seed, self.name, "shift", step))


@dataclass
class Keeper:
    """Writes the state down at most every `seconds`, and takes it up again. `key` names everything that the result
    depends on; `warn` is told in one line where what was written is damaged."""

    path: Path
    key: str
    seconds: float = 20.0
    warn: Callable[[str], None] = lambda line: None
    _last: float = field(default_factory=time.monotonic)

    def resume(self) -> dict | None:
        """The state of an interrupted run with this key."""
        state = checkpoint.load(self.path)
        if state is None and self.path.exists():
            self.warn(f"{self.path} is damaged: what it was the middle of begins anew")
        return state if state is not None and state.get("key") == self.key else None

    def keep(self, state: Callable[[], dict]) -> None:
        if time.monotonic() - self._last >= self.seconds:
            checkpoint.save(self.path, {"key": self.key, **state()})
            self._last = time.monotonic()

    def done(self) -> None:
        """Nothing is left to take up."""
        self.path.unlink(missing_ok=True)


def steps_of(epochs: float, each: int) -> int:
    return max(0, round(epochs * each))


def search(
    network: Network,
    method: Mixtures,
    cost: Cost,
    price: Price,
    images: Samples,
    recipe: SearchRecipe,
    *,
    seed: int,
    loss: Callable[[Any, Any, Any], Tensor] = cross_entropy,
    keeper: Keeper | None = None,
    show: PhaseProgress = silent,
) -> dict:
    """Weights and clips step on one half of the images, the method's strengths on the other, in turn (bilevel, first
    order); or both at once on all, as the method wants it. A budget is the method's aim, a weight of the cost a term of
    the loss.

    Leaves network and method as they are at the end; read out with `method.readout`. Returns figures of the end:
    expected cost and losses.
    """
    mine, others = (images, images) if method.together else images.split(recipe.held_out, seed)
    train, held = Batches(mine, recipe, seed, "train"), Batches(others, recipe, seed, "held out")
    warm = steps_of(recipe.warmup, train.each)
    total = warm + steps_of(recipe.epochs, train.each)
    theta, strengths = learned(network), list(method.parameters())
    steps = _Optimizers(
        _adam(theta, lr=recipe.rate, weight_decay=recipe.decay), method.optimizer() if strengths else None
    )
    if isinstance(price, BudgetPrice):
        method.aim(cost, price.target)
    parts = {"network": network, "method": method}
    figures: dict = {}
    first = 0
    if state := keeper.resume() if keeper else None:
        first, figures = state["step"], state["figures"]
        _restore(state, parts, steps)
    network.train()
    for step in range(first, total):
        progress = max(0, step - warm) / max(1, total - warm)
        learning = step >= warm and steps.strengths is not None
        steps.theta.param_groups[0]["lr"] = recipe.rate_at(step / total)
        if steps.strengths is not None:
            steps.strengths.param_groups[0]["lr"] = method.rate_at(progress)
        both = learning and method.together
        chance = draw(seed, "forward", step)

        def term() -> Tensor | None:
            """What the cost adds to the loss of what is mixed."""
            expected = method.cost(cost)
            figures["expected"] = expected.item()
            return price.term(expected) if isinstance(price, WeightPrice) else None

        method.mix(network, progress, draw(seed, "mix", step), learn=both)
        optimizers = [o for o in (steps.theta, steps.strengths if both else None) if o is not None]
        figures["loss"] = take_step(network, train[step], optimizers, loss, chance, term() if both else None)
        if learning and not both and steps.strengths is not None:
            method.mix(network, progress, draw(seed, "mix held out", step), learn=True)
            more = term()
            if method.open:
                figures["held out loss"] = take_step(
                    network, held[step], [steps.strengths], loss, chance, more, frozen=theta
                )
        show("search", step + 1, total, figures)
        if keeper:
            keeper.keep(lambda: {**_state(parts, steps), "step": step + 1, "figures": figures})
    method.finish()
    return figures


def retrain(
    network: Network,
    assignment: BitAssignment | None,
    images: Samples,
    recipe: Recipe,
    *,
    seed: int,
    loss: Callable[[Any, Any, Any], Tensor] = cross_entropy,
    keeper: Keeper | None = None,
    show: PhaseProgress = silent,
    what: str = "retrain",
    bits: Callable[[int], BitAssignment] | None = None,
) -> dict:
    """Trains the network at these bits (None: without quantization) from the weights it has; `bits`: other ones for each
    step. Returns figures of the end."""
    network.assign(assignment)
    batches = Batches(images, recipe, seed, what)
    total = steps_of(recipe.epochs, batches.each)
    theta = learned(network)
    steps = _Optimizers(_adam(theta, lr=recipe.rate, weight_decay=recipe.decay))
    figures: dict = {}
    first = 0
    if state := keeper.resume() if keeper else None:
        first, figures = state["step"], state["figures"]
        _restore(state, {"network": network}, steps)
    network.train()
    for step in range(first, total):
        steps.theta.param_groups[0]["lr"] = recipe.rate_at(step / total)
        if bits is not None:
            network.assign(bits(step))
        figures["loss"] = take_step(network, batches[step], [steps.theta], loss, draw(seed, what, "forward", step))
        show(what, step + 1, total, figures)
        if keeper:
            keeper.keep(lambda: {**_state({"network": network}, steps), "step": step + 1, "figures": figures})
    return figures


@torch.no_grad()
def accuracy(network: Network, images: Images, batch: int = 256) -> float:
    """Top-1 share of right answers, in evaluation mode."""
    training = network.training
    network.eval()
    right = sum(
        int((network(pixels.float() / 255).argmax(1) == labels).sum()) for pixels, labels in _in_order(images, batch)
    )
    network.train(training)
    return right / len(images)


def _in_order(images: Images, batch: int) -> Iterator[tuple[Tensor, Tensor]]:
    return zip(images.pixels.split(batch), images.labels.split(batch), strict=True)


def take_step(
    network: Network,
    batch: tuple[Any, Any],
    optimizers: Sequence[torch.optim.Optimizer],
    loss_of: Callable[[Any, Any, Any], Tensor],
    chance: torch.Generator,
    more: Tensor | None = None,
    frozen: Sequence[nn.Parameter] = (),
) -> float:
    """One step on the loss and what is added to it; the loss. Gradients of `frozen` are not even computed. `chance`: of
    what the network draws, as dropout does."""
    for p in frozen:
        p.requires_grad_(False)
    try:
        with torch.random.fork_rng(devices=[]), torch.autocast("cpu", torch.bfloat16, enabled=_short()):
            torch.manual_seed(chance.initial_seed())
            outputs = network(batch[0])
        loss = loss_of(pytree.tree_map_only(Tensor, _full, outputs), batch[1], batch[0])
        for optimizer in optimizers:
            optimizer.zero_grad(set_to_none=True)
        (loss if more is None else loss + more).backward()
    finally:
        for p in frozen:
            p.requires_grad_(True)
    for optimizer in optimizers:
        optimizer.step()
    return loss.item()


def learned(network: nn.Module) -> list[nn.Parameter]:
    """Those that are not frozen, which stay so."""
    return [p for p in network.parameters() if p.requires_grad]


def _full(x: Tensor) -> Tensor:
    """Floating point as float32."""
    return x.float() if x.is_floating_point() else x


@cache
def _short() -> bool:
    """Whether this CPU multiplies bfloat16 itself. Then training does, 1.5 times as fast; whatever is measured or
    exported is float32."""
    able = torch.cpu.get_capabilities()
    return bool(able.get("avx512_bf16") or able.get("amx_bf16"))


def _adam(parameters: list[nn.Parameter], **options) -> torch.optim.Adam:
    return torch.optim.Adam(parameters, fused=True, **options)


@dataclass
class _Optimizers:
    theta: torch.optim.Optimizer
    strengths: torch.optim.Optimizer | None = None


def _state(parts: dict[str, nn.Module], steps: _Optimizers) -> dict:
    return {
        **{name: dict(part.state_dict()) for name, part in parts.items()},
        "optimizers": {k: v.state_dict()["state"] for k, v in vars(steps).items() if v is not None},
    }


def _restore(state: dict, parts: dict[str, nn.Module], steps: _Optimizers) -> None:
    for name, part in parts.items():
        part.load_state_dict(state[name])
    for name, optimizer in vars(steps).items():
        if optimizer is not None:
            optimizer.load_state_dict({**optimizer.state_dict(), "state": state["optimizers"][name]})
