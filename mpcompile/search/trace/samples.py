"""A user's data as what is trained with: tensors, map-style data sets, and loaders of them.

Samples are asked for by their number, in an order of ours, so that a search can be gone on with and split in two; a
loader's own order and number of workers are not used, its batches' form (collate_fn) is.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils import _pytree as pytree
from torch.utils.data import DataLoader, IterableDataset, TensorDataset, default_collate

from mpcompile.errors import UsageError

LOOKED_AT = 64
"""Samples of a data set that its fingerprint is of, where it is not held as tensors."""


@dataclass(frozen=True, eq=False)
class UserSamples:
    """`fetch`: indices → inputs and targets; `count` of them."""

    name: str
    count: int
    fetch: Callable[[list[int]], tuple[Any, Any]]
    chosen: Tensor | None = None
    """A part's numbers in the whole."""

    def __len__(self) -> int:
        return self.count if self.chosen is None else len(self.chosen)

    def batch(self, index: Tensor, shift: int, draw: torch.Generator) -> tuple[Any, Any]:
        """`shift` is for images of ours: what moves these is the data set's own matter."""
        with seeded(draw.initial_seed()):
            return self.fetch((index if self.chosen is None else self.chosen[index]).tolist())

    def split(self, share: float, seed: int) -> tuple[UserSamples, UserSamples]:
        if len(self) < 2:
            raise UsageError(f"{self.name} has {len(self)} samples: a search divides at least two")
        order = torch.randperm(len(self), generator=torch.Generator().manual_seed(seed))
        second = min(max(1, round(share * len(self))), len(self) - 1)
        whole = torch.arange(self.count) if self.chosen is None else self.chosen
        parts = whole[order[second:]], whole[order[:second]]
        return UserSamples(self.name, self.count, self.fetch, parts[0]), UserSamples(
            self.name, self.count, self.fetch, parts[1]
        )

    def in_order(self, together: int, most: int | None = None) -> Iterator[tuple[Any, Any]]:
        """All of them, or the first so many, some at a time; the same each time."""
        draw = torch.Generator().manual_seed(0)
        for some in torch.arange(len(self))[:most].split(together):
            yield self.batch(some, 0, draw)

    def fingerprint(self) -> str:
        """sha256 of the count and of samples, evenly taken."""
        digest = hashlib.sha256(str(len(self)).encode())
        for at in range(0, len(self), max(1, len(self) // LOOKED_AT)):
            for value in pytree.tree_leaves(self.batch(torch.tensor([at]), 0, torch.Generator().manual_seed(0))):
                array = value.detach().cpu().contiguous().numpy() if isinstance(value, Tensor) else None
                digest.update(repr(value).encode() if array is None else str(array.dtype).encode() + array.tobytes())
        return digest.hexdigest()


def samples_of(given: Any, name: str) -> UserSamples:
    """A pair (inputs, targets) of tensors or arrays, a map-style data set, or a loader of one. Raises UsageError, with
    `name` in front, at anything else."""
    collate: Callable[[list], Any] = default_collate
    if isinstance(given, DataLoader):
        collate, given = given.collate_fn, given.dataset
    if isinstance(given, (tuple, list)) and len(given) == 2 and all(isinstance(g, (Tensor, np.ndarray)) for g in given):
        if len(given[0]) != len(given[1]):
            raise UsageError(f"{name} has {len(given[0])} inputs and {len(given[1])} targets")
        given = TensorDataset(*map(torch.as_tensor, given))
    if isinstance(given, TensorDataset) and len(given.tensors) == 2 and collate is default_collate:
        inputs, targets = given.tensors
        found = UserSamples(name, len(inputs), lambda index: (inputs[index], targets[index]))
    elif isinstance(given, IterableDataset) or not hasattr(given, "__getitem__") or not hasattr(given, "__len__"):
        raise UsageError(
            f"{name} is a {type(given).__name__}: a pair of tensors, a data set whose samples have numbers, or a "
            "DataLoader of one would be accepted"
        )
    else:
        found = UserSamples(name, len(given), lambda index: _pair(collate([given[i] for i in index]), name))
    if len(found) < 2:
        raise UsageError(f"{name} has {len(found)} samples: at least two would be accepted")
    return found


def _pair(batch: Any, name: str) -> tuple[Any, Any]:
    if not isinstance(batch, (tuple, list)) or len(batch) != 2:
        what = f"{len(batch)} parts" if isinstance(batch, (tuple, list)) else f"a {type(batch).__name__}"
        raise UsageError(f"{name} gives batches of {what}: inputs and targets would be accepted")
    return batch[0], batch[1]


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Every source of chance that data sets draw from starts here; outside it goes on as if nothing had been drawn."""
    python, numpy = random.getstate(), np.random.get_state()  # the one that others draw from
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        random.seed(seed)
        np.random.seed(seed % (1 << 32))
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)
