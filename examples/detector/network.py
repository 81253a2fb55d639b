"""The detector in PyTorch: a backbone to an eighth of the picture's size, up again to a quarter, and one head."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from pictures import CLASSES, SIZE, Box, pictures
from torch import nn
from torch.nn import functional as F

STRIDE = 4
CELLS = SIZE // STRIDE
OUTPUTS = len(CLASSES) + 4
"""Of a cell: how likely each class's middle is there (logits), where in it, and log of width and height in cells."""
BATCH = 16


class Block(nn.Sequential):
    """Convolution, BatchNorm, SiLU."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1):
        super().__init__(
            nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs), nn.SiLU(inplace=True)
        )


class Detector(nn.Module):
    """(N, 3, SIZE, SIZE) → (N, OUTPUTS, CELLS, CELLS)."""

    def __init__(self):
        super().__init__()
        self.first = Block(3, 16, 2)
        self.quarter = nn.Sequential(Block(16, 32, 2), Block(32, 32))
        self.eighth = nn.Sequential(Block(32, 64, 2), Block(64, 64), Block(64, 64))
        self.join = Block(96, 48)
        self.head = nn.Conv2d(48, OUTPUTS, 1)
        nn.init.constant_(self.head.bias[: len(CLASSES)], -3.0)  # middles are rare

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        quarter = self.quarter(self.first(x))
        up = F.interpolate(self.eighth(quarter), scale_factor=2.0, mode="nearest")
        return self.head(self.join(torch.cat([quarter, up], 1)))


def targets(boxes: Sequence[Sequence[Box]]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """(heat, places, known): how much of a middle each cell is, (N, classes, CELLS, CELLS), 1 at middles, less around them;
    the last four outputs, and where they are known."""
    heat = np.zeros((len(boxes), len(CLASSES), CELLS, CELLS), np.float32)
    places = np.zeros((len(boxes), 4, CELLS, CELLS), np.float32)
    known = np.zeros((len(boxes), 1, CELLS, CELLS), np.float32)
    rows, columns = np.mgrid[0:CELLS, 0:CELLS]
    for i, some in enumerate(boxes):
        for box in some:
            x, y = box.x / STRIDE, box.y / STRIDE
            column, row = int(x), int(y)
            spread = 0.1 * (box.width + box.height) / STRIDE
            near = np.exp(-((rows - row) ** 2 + (columns - column) ** 2) / (2 * spread**2))
            heat[i, box.kind] = np.maximum(heat[i, box.kind], near)
            places[i, :, row, column] = x - column, y - row, np.log(box.width / STRIDE), np.log(box.height / STRIDE)
            known[i, 0, row, column] = 1
    return torch.from_numpy(heat), torch.from_numpy(places), torch.from_numpy(known)


def loss(output: torch.Tensor, heat: torch.Tensor, places: torch.Tensor, known: torch.Tensor) -> torch.Tensor:
    """CenterNet's: a focal loss of middles, less where one is near, and the distance of places at middles."""
    logits, found = output[:, : len(CLASSES)], output[:, len(CLASSES) :]
    sure = torch.sigmoid(logits)
    middle = (heat == 1).float()
    log_sure, log_unsure = F.logsigmoid(logits), F.logsigmoid(-logits)
    focal = middle * (1 - sure) ** 2 * log_sure + (1 - middle) * (1 - heat) ** 4 * sure**2 * log_unsure
    count = middle.sum().clamp(min=1)
    return (-focal.sum() + (known * (found - places).abs()).sum()) / count


def trained(steps: int, seed: int = 0, told=print) -> Detector:
    """On pictures that are drawn anew for each step."""
    torch.manual_seed(seed)
    network = Detector()
    optimizer = torch.optim.AdamW(network.parameters(), 4e-3, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, total_steps=steps)
    network.train()
    for step in range(steps):
        images, boxes = pictures(BATCH, seed=1_000_000 + step)
        value = loss(network(torch.from_numpy(images)), *targets(boxes))
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        schedule.step()
        if (step + 1) % 100 == 0:
            told(f"step {step + 1} of {steps}: loss {value.item():.2f}")
    return network.eval()


def export(network: Detector, path: Path) -> None:
    """Float ONNX, one picture at a time."""
    example = (torch.zeros(1, 3, SIZE, SIZE),)
    torch.onnx.export(
        network,
        example,
        str(path),
        input_names=["x"],
        output_names=["cells"],
        dynamo=True,
        external_data=False,
        verbose=False,
    )
