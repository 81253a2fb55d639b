"""Training for the demo: the float network, then the quantized one from its weights; export to QONNX and to plain ONNX.

Interruptible: after each epoch weights and optimizer go to a `.part.npz` beside the result, and a run with the same
`key` continues from it, to the same weights: the order of the images and their shifts depend on the epoch's number
alone.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from data import Data, scaled
from network import CALIBRATION_STEPS, PLAN, Network
from torch import Tensor, nn

from mpcompile.files import atomic_path

BATCH = 64
Show = Callable[[int, int, float, float], None]
"""Called with (epoch, epochs, loss, test accuracy)."""


@dataclass(frozen=True)
class Recipe:
    """Adam, its rate falling from `rate` to 0 along a cosine; images shifted by up to `shift` pixels."""

    epochs: int
    rate: float
    shift: int = 2

    def rate_at(self, progress: float) -> float:
        """The rate after this part (0 to 1) of the training."""
        return self.rate * (1 + math.cos(math.pi * progress)) / 2


FLOAT, QUANTIZED = Recipe(5, 2e-3), Recipe(9, 1.5e-3)


def float_network(data: Data) -> Network:
    torch.manual_seed(0)
    return Network(data.channels, data.classes, {})


def quantized_network(data: Data) -> Network:
    return Network(data.channels, data.classes, PLAN)


def start_from(network: Network, weights: dict[str, np.ndarray]) -> None:
    """Gives a quantized network the float network's weights. Its scales start from statistics at the first batches."""
    found = network.load_state_dict({k: torch.from_numpy(v) for k, v in weights.items()}, strict=False)
    strange = [*found.unexpected_keys, *(k for k in found.missing_keys if not k.endswith("scaling_impl.value"))]
    if strange:
        raise ValueError(f"the float network's weights do not fit: {', '.join(strange)}")


def restore(network: Network, weights: dict[str, np.ndarray]) -> Network:
    """The trained network, ready to run or to export."""
    network.load_state_dict({k: torch.from_numpy(v) for k, v in weights.items()})
    return network.eval()


def accuracy(network: nn.Module, images: np.ndarray, labels: np.ndarray) -> float:
    """Top-1 share of right answers."""
    network.eval()
    with torch.no_grad():
        answers = [
            network(torch.from_numpy(scaled(images[i : i + 256]))).argmax(1).numpy() for i in range(0, len(images), 256)
        ]
    return float((np.concatenate(answers) == labels).mean())


def fit(network: Network, data: Data, recipe: Recipe, file: Path, key: str, show: Show) -> float:
    """Trains `network` and writes its weights to `file` (npz); returns the test accuracy."""
    images, labels = torch.from_numpy(scaled(data.train[0])), torch.from_numpy(data.train[1])
    part = file.with_suffix(".part.npz")
    first, state = resume(part, key, network)
    if first == 0:
        calibrate(network, images)
    # Only now: loading weights into Brevitas's layers makes their quantizers anew, with other Parameter objects.
    optimizer = torch.optim.Adam(network.parameters(), lr=recipe.rate)
    optimizer.load_state_dict({**optimizer.state_dict(), "state": state})
    steps = -(-len(images) // BATCH)
    score = 0.0
    for epoch in range(first, recipe.epochs):
        network.train()
        draw = torch.Generator().manual_seed(epoch)
        total = 0.0
        for step, index in enumerate(torch.randperm(len(images), generator=draw).split(BATCH)):
            optimizer.param_groups[0]["lr"] = recipe.rate_at((epoch + step / steps) / recipe.epochs)
            loss = nn.functional.cross_entropy(network(shifted(images[index], recipe.shift, draw)), labels[index])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += loss.item() * len(index)
        score = accuracy(network, *data.test)
        show(epoch + 1, recipe.epochs, total / len(images), score)
        if epoch + 1 < recipe.epochs:
            checkpoint(part, key, epoch + 1, network, optimizer)
    save(file, {name: t.numpy() for name, t in network.state_dict().items()})
    part.unlink(missing_ok=True)
    return score


def calibrate(network: Network, images: Tensor) -> None:
    """Lets the activation quantizers take their first scales from a few batches, so that no epoch begins without."""
    network.train()
    with torch.no_grad():
        for step in range(CALIBRATION_STEPS + 1):
            start = step * BATCH % len(images)
            network(images[start : start + BATCH])


def shifted(images: Tensor, most: int, draw: torch.Generator) -> Tensor:
    """The batch, each image moved by −most..most pixels along both axes; background (−1) comes in from outside."""
    n, _, h, w = images.shape
    padded = nn.functional.pad(images, (most,) * 4, value=-1.0)
    moves = torch.randint(0, 2 * most + 1, (n, 2), generator=draw).tolist()
    return torch.stack([padded[i, :, y : y + h, x : x + w] for i, (y, x) in enumerate(moves)])


# -- files: arrays only, nothing that needs pickle --------------------------------------------------------------------
def save(file: Path, arrays: dict[str, np.ndarray]) -> None:
    with atomic_path(file) as path, open(path, "wb") as out:
        np.savez(out, **arrays)


def load(file: Path) -> dict[str, np.ndarray]:
    with np.load(file, allow_pickle=False) as arrays:
        return dict(arrays)


def checkpoint(part: Path, key: str, epoch: int, network: Network, optimizer: torch.optim.Adam) -> None:
    arrays = {f"network/{name}": t.numpy() for name, t in network.state_dict().items()}
    for i, state in optimizer.state_dict()["state"].items():
        arrays |= {f"optimizer/{i}/{name}": t.numpy() for name, t in state.items()}
    save(part, {"key": np.array(key), "epoch": np.array(epoch), **arrays})


def resume(part: Path, key: str, network: Network) -> tuple[int, dict[int, dict[str, Tensor]]]:
    """Loads a checkpoint of this key into the network; the epoch to go on with, and the optimizer's state."""
    arrays = load(part) if part.exists() else {}
    state: dict[int, dict[str, Tensor]] = {}
    if not arrays or str(arrays["key"]) != key:
        return 0, state
    tensors = {name: torch.from_numpy(a) for name, a in arrays.items() if a.dtype.kind != "U"}
    network.load_state_dict({n.removeprefix("network/"): t for n, t in tensors.items() if n.startswith("network/")})
    for name, tensor in tensors.items():
        if name.startswith("optimizer/"):
            _, i, field = name.split("/")
            state.setdefault(int(i), {})[field] = tensor
    return int(arrays["epoch"]), state


# -- export -----------------------------------------------------------------------------------------------------------
def export(network: Network, file: Path, *, quantized: bool) -> None:
    """ONNX, one image as input "image", logits as output "logits"; a quantized network by Brevitas's QONNX exporter."""
    network.eval()
    image = torch.zeros(1, network.stem[1].in_channels, 32, 32)
    names = dict(input_names=["image"], output_names=["logits"], opset_version=17, dynamo=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if quantized:
            from brevitas.export import export_qonnx

            export_qonnx(network, args=image, export_path=str(file), **names)
        else:
            torch.onnx.export(network, (image,), str(file), **names)
