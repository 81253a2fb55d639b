"""Training until it stands still: whole trainings one after another, each twice as long as the one before.

Each goes on with the weights of the last, its rate falling from the beginning to 0 again (warm restarts, arXiv 1608.03983),
so that each ends in a state that can be compared. The loss on held-out images says when it is enough. A network whose
training was cut short says little about its bits: what is compared has to be trained to the end.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from mpcompile.latency.progress import PhaseProgress
from mpcompile.search import checkpoint
from mpcompile.search.judge import Judge
from mpcompile.search.layers import BitAssignment, Network
from mpcompile.search.loop import Keeper, Recipe, Samples, cross_entropy, retrain, silent

HELD_OUT = 0.1
"""Of the samples: they are not trained with."""


@dataclass(frozen=True)
class Still:
    """Enough is what lowers the loss by less than this share of it; `most` trainings at the utmost. A share of 0: one
    training, on all samples."""

    share: float = 0.0
    most: int = 4


def train(
    network: Network,
    assignment: BitAssignment | None,
    samples: Samples,
    recipe: Recipe,
    still: Still = Still(),
    *,
    seed: int,
    loss: Callable[[Any, Any, Any], Tensor] = cross_entropy,
    keeper: Keeper | None = None,
    show: PhaseProgress = silent,
) -> dict:
    """`retrain`, again and again. Returns figures of the end: also the epochs in all, and the loss on held-out images."""
    if not still.share:
        return retrain(network, assignment, samples, recipe, seed=seed, loss=loss, keeper=keeper, show=show)
    mine, others = samples.split(HELD_OUT, seed)
    judge = Judge(network, others, len(others), loss, seed, recipe.batch)
    between = keeper.path.with_suffix(".between.npz") if keeper else None
    done, last, figures = 0, float("inf"), {}
    if keeper and between and (state := Keeper(between, keeper.key, warn=keeper.warn).resume()):
        done, last, figures = state["done"], state["last"], state["figures"]
        network.load_state_dict(state["network"])
        if state["enough"]:
            done = still.most
    for part in range(done, still.most):
        longer = replace(recipe, epochs=recipe.epochs * 2**part)
        own = replace(keeper, key=f"{keeper.key}/{part}") if keeper else None
        name = f"retrain {part}" if part else "retrain"
        found = retrain(network, assignment, mine, longer, seed=seed, loss=loss, keeper=own, show=show, what=name)
        now = judge(assignment)
        figures = {**found, "held out loss": now, "epochs": recipe.epochs * (2 ** (part + 1) - 1)}
        enough = now > last * (1 - still.share)
        last = min(last, now)
        if keeper and between:
            state = {"done": part + 1, "last": last, "figures": figures, "enough": enough}
            checkpoint.save(between, {"key": keeper.key, **state, "network": dict(network.state_dict())})
        if enough:
            break
    if between:
        between.unlink(missing_ok=True)
    return figures
