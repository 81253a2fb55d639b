"""What a search method is: a class with its options, which is asked for bits under a price and answers with an assignment.

Data, pretraining, landing on a budget, retraining, resuming and measuring are shared by all methods.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from mpcompile.errors import UsageError
from mpcompile.latency.progress import PhaseProgress
from mpcompile.search.config import SearchOptions
from mpcompile.search.layers import BitAssignment, Network
from mpcompile.search.loop import Keeper, Samples, SearchRecipe, cross_entropy, silent
from mpcompile.search.objective import BudgetPrice, Cost, Price

Scores = Mapping[str, Mapping[str, Tensor]]
""" "weights" and "tensors": name → how good each candidate is [B], larger is better: to land on a budget."""


@dataclass
class Query:
    """What a method is asked. `network`: with the weights of the float network; the method may change them. `price`: of
    its cost, a budget as a rule. `recipe`: of methods that train. `before`: the state that the search for the budget
    before, a looser one, ended in. `keeper`: where what takes long is written down and taken up again."""

    network: Network
    cost: Cost
    price: Price
    samples: Samples
    recipe: SearchRecipe
    seed: int = 0
    loss: Callable[[Any, Any, Any], Tensor] = cross_entropy
    before: dict | None = None
    keeper: Keeper | None = None
    show: PhaseProgress = silent

    def target(self, method: str) -> float:
        """The budget, in the cost's unit. Raises UsageError where the cost is weighed instead."""
        if not isinstance(self.price, BudgetPrice):
            raise UsageError(f'method "{method}" searches for budgets: objective.targets, not objective.weights')
        return self.price.target


@dataclass
class Found:
    """`assignment`: what the method came to. `scores`: by which it is landed on the budget; None: it keeps it as it is.
    `state`: what the search for the next budget may begin with, for a checkpoint. `figures`: for the log."""

    assignment: BitAssignment
    scores: Scores | None = None
    state: dict = field(default_factory=dict)
    figures: dict[str, float] = field(default_factory=dict)


class Method(ABC):
    """One class a method, entered in METHODS by its name; its options are `[search.NAME]`."""

    @classmethod
    @abstractmethod
    def configured(cls, network: Network, search: SearchOptions) -> Method:
        """The method for a network, with its options from the configuration."""

    @abstractmethod
    def search(self, query: Query) -> Found:
        """Bits for this price. Raises MpError's subclasses."""
