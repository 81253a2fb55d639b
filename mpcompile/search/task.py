"""What a search is about: a network, its data, a loss and a score; the images with our residual CNN, or a user's module."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from mpcompile.search import data
from mpcompile.search.config import Config
from mpcompile.search.export import INPUT, export
from mpcompile.search.layers import FlowNetwork, Network
from mpcompile.search.loop import Samples, accuracy, cross_entropy
from mpcompile.search.models import ResNet

Chunks = Iterator[tuple[np.ndarray, Any]]
"""Inputs float32 [N, …] and their targets, some at a time."""
TOGETHER = 512
"""Samples that a device is sent at once."""


class Loss(Protocol):
    """Of what the network makes of inputs, with the targets that belong to them: a scalar."""

    def __call__(self, outputs: Any, targets: Any, inputs: Any) -> Tensor: ...


class Task(ABC):
    """`fingerprint`: of all data and weights that results depend on; `shape`: what the network's times depend on besides
    the configuration; `input`: the files' input."""

    fingerprint: str
    shape: Sequence[Any]
    input: str
    train: Samples
    loss: Loss = staticmethod(cross_entropy)

    @abstractmethod
    def network(self, state: dict | None = None) -> Network:
        """The network as it was at the beginning, always the same, or with the weights of `state`; its clips started from
        the first batch."""

    @abstractmethod
    def export(self, network: Network, path: Path) -> None:
        """Its QONNX file, at the bits that are set."""

    @abstractmethod
    def score(self, network: Network) -> float:
        """What points are compared by, on data that nothing was trained with: larger is better."""

    @abstractmethod
    def score_file(self, answer: Callable[[np.ndarray], Sequence[np.ndarray]]) -> float:
        """The same of a file: `answer` runs it on inputs float32 [N, …], and gives its outputs in order."""

    @abstractmethod
    def inputs(self, count: int, part: str) -> np.ndarray:
        """The first so many inputs "train" or "test", float32 [N, …], as files take them."""

    @abstractmethod
    def about(self) -> dict[str, Any]:
        """The data, for the record: name, sha256, train, test, classes, image."""


class ImagesTask(Task):
    """Images of a configuration's `data`, and the residual CNN of its `network`."""

    input = INPUT

    def __init__(self, config: Config):
        self.config = config
        self.data = data.load(
            config.data.path or None,
            side=config.data.side,
            train=config.data.train or None,
            test=config.data.test or None,
        )
        self.train = self.data.train
        self.fingerprint = self.data.fingerprint
        self.shape = self.data.channels, self.data.side, self.data.classes

    def network(self, state: dict | None = None) -> Network:
        n, s = self.config.network, self.config.search
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.config.seed)
            made = ResNet(
                n.widths,
                n.blocks,
                channels=self.data.channels,
                side=self.data.side,
                classes=self.data.classes,
                stem_stride=n.stem_stride,
                weights=s.weights,
                activations=s.activations,
                weight=n.weight,
                activation=n.activation,
            )
        if state:
            made.load_state_dict(state)
        made.start_clips(self.data.train.pixels[: s.batch].float() / 255)
        return made

    def export(self, network: Network, path: Path) -> None:
        assert isinstance(network, FlowNetwork)  # it was made here
        export(network, path)

    def score(self, network: Network) -> float:
        return accuracy(network, self.data.test)

    def score_file(self, answer: Callable[[np.ndarray], Sequence[np.ndarray]]) -> float:
        """The share of the test images that it answers rightly."""
        right = 0
        for pixels, labels in zip(
            self.data.test.pixels.split(TOGETHER), self.data.test.labels.split(TOGETHER), strict=True
        ):
            (logits,) = answer((pixels.float() / 255).numpy())
            right += int((logits.reshape(len(labels), -1).argmax(1) == labels.numpy()).sum())
        return right / len(self.data.test)

    def inputs(self, count: int, part: str) -> np.ndarray:
        return (getattr(self.data, part).pixels[:count].float() / 255).numpy()

    def about(self) -> dict[str, Any]:
        found = self.data
        return {
            "name": found.name,
            "sha256": found.fingerprint,
            "train": len(found.train),
            "test": len(found.test),
            "classes": found.classes,
            "image": [found.channels, found.side, found.side],
        }
