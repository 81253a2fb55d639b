"""Pictures of coloured shapes on an uneven ground, and the boxes around them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

SIZE = 96
CLASSES = ("disc", "square", "triangle")


@dataclass(frozen=True)
class Box:
    """Of a shape: middle, width and height in pixels; its class's number; how sure a detector is."""

    x: float
    y: float
    width: float
    height: float
    kind: int
    score: float = 1.0

    def corners(self) -> tuple[float, float, float, float]:
        """Left, top, right, bottom."""
        w, h = self.width / 2, self.height / 2
        return self.x - w, self.y - h, self.x + w, self.y + h

    def overlap(self, other: Box) -> float:
        """Of both areas the common part: intersection over union."""
        (a, b, c, d), (e, f, g, h) = self.corners(), other.corners()
        common = max(0.0, min(c, g) - max(a, e)) * max(0.0, min(d, h) - max(b, f))
        return common / (self.width * self.height + other.width * other.height - common)


def picture(rng: np.random.Generator) -> tuple[np.ndarray, list[Box]]:
    """float32 (3, SIZE, SIZE) from 0 to 1, and one to four boxes that hardly overlap."""
    y, x = np.mgrid[0:SIZE, 0:SIZE].astype(np.float32)
    slope, level = rng.normal(0, 0.3, (2, 3)), rng.uniform(0.25, 0.75, 3)
    image = level[:, None, None] + np.einsum("ac,axy->cxy", slope, np.stack([x, y]) / SIZE - 0.5)
    boxes: list[Box] = []
    wanted = int(rng.integers(1, 5))
    while len(boxes) < wanted:
        width, height = rng.uniform(14, 36), 0.0
        height = width * rng.uniform(0.8, 1.25)
        middle = [rng.uniform(n / 2 + 1, SIZE - n / 2 - 1) for n in (width, height)]
        box = Box(*middle, width, height, int(rng.integers(len(CLASSES))))
        if any(box.overlap(other) > 0.05 for other in boxes):
            wanted -= bool(rng.random() < 0.05)  # it may be full
            continue
        boxes.append(box)
        colour = rng.uniform(0, 1, 3)
        while np.abs(colour - level).max() < 0.35:
            colour = rng.uniform(0, 1, 3)
        image = np.where(_inside(box, x, y), colour[:, None, None], image)
    image = image + rng.normal(0, 0.04, image.shape)
    return np.clip(image, 0, 1).astype(np.float32), boxes


def _inside(box: Box, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    u, v = (x - box.x) / (box.width / 2), (y - box.y) / (box.height / 2)
    match CLASSES[box.kind]:
        case "disc":
            return u**2 + v**2 <= 1
        case "square":
            return np.maximum(abs(u), abs(v)) <= 1
    return (v <= 1) & (abs(u) <= (v + 1) / 2)


def pictures(count: int, seed: int) -> tuple[np.ndarray, list[list[Box]]]:
    """float32 (count, 3, SIZE, SIZE), and the boxes of each."""
    rng = np.random.default_rng(seed)
    made = [picture(rng) for _ in range(count)]
    return np.stack([image for image, _ in made]), [boxes for _, boxes in made]
