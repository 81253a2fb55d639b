"""From the network's cells to boxes, what boxes are worth, and drawing them. numpy, and Pillow for pictures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from pictures import CLASSES, Box

STRIDE = 4
COLOURS = ((230, 60, 60), (50, 170, 60), (60, 110, 240))
MOST = 20
"""Boxes of a picture."""
LARGEST = 5.0
"""Of the logarithm of a size: a network that was hardly trained may say anything."""


def found(cells: np.ndarray, least: float = 0.05) -> list[Box]:
    """float32 (classes + 4, H, W) → boxes, the surest first: cells at least that sure, and none beside a surer one."""
    heat = 1 / (1 + np.exp(-cells[: len(CLASSES)].astype(np.float64)))
    padded = np.pad(heat, ((0, 0), (1, 1), (1, 1)))
    around = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), (1, 2)).max((-2, -1))
    kinds, rows, columns = np.nonzero((heat == around) & (heat >= least))
    boxes = []
    for kind, row, column in zip(kinds, rows, columns):
        x, y, width, height = cells[len(CLASSES) :, row, column]
        sizes = np.exp(np.minimum([width, height], LARGEST)) * STRIDE
        score = float(heat[kind, row, column])
        boxes.append(Box((column + float(x)) * STRIDE, (row + float(y)) * STRIDE, *map(float, sizes), int(kind), score))
    boxes.sort(key=lambda box: -box.score)
    kept: list[Box] = []
    for box in boxes:
        if len(kept) < MOST and all(box.overlap(other) < 0.5 for other in kept):
            kept.append(box)
    return kept


def average_precision(answers: Sequence[Sequence[Box]], right: Sequence[Sequence[Box]], overlap: float = 0.5) -> float:
    """Mean over the classes of the area under precision over recall; a box is right that overlaps one of its class by so
    much which no surer box has taken."""
    areas = []
    for kind in range(len(CLASSES)):
        ranked = sorted(
            ((box.score, i, box) for i, some in enumerate(answers) for box in some if box.kind == kind),
            key=lambda one: -one[0],
        )
        wanted = [[box for box in some if box.kind == kind] for some in right]
        count = sum(map(len, wanted))
        taken: set[tuple[int, int]] = set()
        hits = []
        for _, i, box in ranked:
            best = max(range(len(wanted[i])), key=lambda j: box.overlap(wanted[i][j]), default=None)
            hit = best is not None and box.overlap(wanted[i][best]) >= overlap and (i, best) not in taken
            if hit:
                taken.add((i, best))
            hits.append(hit)
        right_so_far = np.cumsum(hits)
        precision = right_so_far / np.arange(1, len(hits) + 1)
        best_after = np.maximum.accumulate(precision[::-1])[::-1]
        areas.append(float((best_after * np.array(hits)).sum() / count) if count and hits else 0.0)
    return float(np.mean(areas))


def draw(image: np.ndarray, boxes: Sequence[Box], title: str, least: float = 0.3, scale: int = 4):
    """A Pillow picture of `image`, float32 (3, H, W), with boxes at least that sure, and `title` above."""
    from PIL import Image, ImageDraw

    pixels = np.rint(image.transpose(1, 2, 0) * 255).astype(np.uint8)
    shown = Image.fromarray(pixels).resize((pixels.shape[1] * scale, pixels.shape[0] * scale), Image.Resampling.NEAREST)
    whole = Image.new("RGB", (shown.width, shown.height + 18), "white")
    whole.paste(shown, (0, 18))
    pen = ImageDraw.Draw(whole)
    pen.text((4, 3), title, fill="black")
    for box in boxes:
        if box.score < least:
            continue
        left, top, right, bottom = (round(n * scale) for n in box.corners())
        pen.rectangle((left, top + 18, right, bottom + 18), outline=COLOURS[box.kind], width=2)
        pen.text((left + 3, top + 20), f"{CLASSES[box.kind]} {box.score:.2f}", fill=COLOURS[box.kind])
    return whole


def side_by_side(rows: Sequence[Sequence], path: Path) -> None:
    """Writes pictures as one, row by row."""
    from PIL import Image

    width, height = rows[0][0].size
    whole = Image.new("RGB", (width * len(rows[0]) + 8 * (len(rows[0]) - 1), (height + 8) * len(rows)), "white")
    for i, row in enumerate(rows):
        for j, picture in enumerate(row):
            whole.paste(picture, (j * (width + 8), i * (height + 8)))
    whole.save(path)
