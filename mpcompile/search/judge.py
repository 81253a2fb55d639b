"""The loss of a network at some bits, without training: what methods judge choices by that train nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils import _pytree as pytree

from mpcompile.search.layers import BitAssignment, Network
from mpcompile.search.loop import Samples, draw


class Judge:
    """Mean loss over `count` of the samples, drawn by `seed` and always the same, in evaluation mode."""

    def __init__(
        self,
        network: Network,
        samples: Samples,
        count: int,
        loss: Callable[[Any, Any, Any], Tensor],
        seed: int,
        batch: int,
        *,
        statistics_of_the_batch: bool = False,
    ):
        """`statistics_of_the_batch`: BatchNorm takes those, and leaves its own as they are."""
        self.network, self.loss, self.of_the_batch = network, loss, statistics_of_the_batch
        order = torch.randperm(len(samples), generator=draw(seed, "judged"))[:count]
        self.batches = [samples.batch(index, 0, draw(seed, "judged", i)) for i, index in enumerate(order.split(batch))]
        self.sizes = [len(pytree.tree_leaves(inputs)[0]) for inputs, _ in self.batches]

    def __call__(self, assignment: BitAssignment | None) -> float:
        """None: without quantization."""
        self.network.assign(assignment)
        return self.now()

    @torch.no_grad()
    def now(self) -> float:
        """With the choices as they are set."""
        training = self.network.training
        self.network.eval()
        norms = [m for m in self.network.modules() if self.of_the_batch and isinstance(m, _BatchNorm)]
        tracking = [m.track_running_stats for m in norms]
        for m in norms:
            m.train()
            m.track_running_stats = False
        try:
            total = sum(
                size * float(self.loss(self.network(inputs), targets, inputs))
                for size, (inputs, targets) in zip(self.sizes, self.batches)
            )
        finally:
            for m, tracks in zip(norms, tracking):
                m.track_running_stats = tracks
            self.network.train(training)
        return total / sum(self.sizes)
