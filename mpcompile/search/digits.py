"""Scenes of scikit-learn's digits, 32×32: data that is there without a download, and not easy.

The 1 797 digits are real handwriting, of 8×8 pixels; any network that trains at all reads 99.7 % of them. A scene is
one of them

* 16 to 24 pixels high, turned by up to 15°, sheared, up to 4 pixels off the middle, of 60 to 100 % contrast,
* among two pieces of other digits (three to five rows or columns of one), as large, about half as bright, wherever
  they fall,
* on a ground of any grey up to a quarter, with noise.

The brightest wins where they overlap. Each digit has SCENES scenes; those of the 360 test digits, pieces too, are made
of test digits only. All chance comes from fixed seeds, and a scene depends on its number alone, so the first n scenes
are the same however many are made.
"""

from __future__ import annotations

import numpy as np

from mpcompile.errors import MissingDependency

Arrays = tuple[np.ndarray, np.ndarray]
"""Images uint8 [N, H, W] or [N, H, W, C], labels [N]."""

SIDE, SMALL = 32, 8
TEST_DIGITS = 360
SCENES = 4
PIECES = 2
DIM = 0.6
"""A piece's contrast, of a digit's."""
CHUNK = 500
"""Scenes that are made at once, from one seed."""


def digits(train: int | None = None, test: int | None = None) -> tuple[Arrays, Arrays]:
    """The first `train` and `test` scenes, without them all: 5 748 and 1 440. Images uint8 [N, 32, 32], labels [N].

    Raises MissingDependency without scikit-learn.
    """
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        raise MissingDependency(
            "the digits come with scikit-learn, which is not installed: pip install scikit-learn"
        ) from None
    pixels, targets = (np.asarray(part) for part in load_digits(return_X_y=True))  # [N, 64], [N]
    order = np.random.default_rng(0).permutation(len(pixels))
    images, labels = pixels.reshape(-1, SMALL, SMALL)[order].astype(np.float32) / 16, targets[order]
    mine, others = slice(TEST_DIGITS, None), slice(TEST_DIGITS)
    return scenes(images[mine], labels[mine], 1, train), scenes(images[others], labels[others], 2, test)


def scenes(images: np.ndarray, labels: np.ndarray, seed: int, count: int | None = None) -> Arrays:
    """The first `count` of SCENES scenes of each image, float32 [N, 8, 8] in 0..1: uint8 [count, 32, 32] and their
    labels. First comes one scene of each image, then another."""
    which = np.tile(np.arange(len(images)), SCENES)[:count]
    made = [
        _chunk(images, which[at : at + CHUNK], np.random.default_rng([seed, at // CHUNK]))
        for at in range(0, len(which), CHUNK)
    ]
    return np.concatenate(made), labels[which]


def _chunk(images: np.ndarray, which: np.ndarray, draw: np.random.Generator) -> np.ndarray:
    """The scenes of these images, as if CHUNK were made."""
    drawn = draw.random((CHUNK, 8 + 12 * PIECES), np.float32)[: len(which)]
    noise = draw.standard_normal((CHUNK, SIDE, SIDE), np.float32)[: len(which)]
    seen = _placed(images[which], drawn[:, :7], 4.0)
    for n in range(PIECES):
        at = drawn[:, 8 + 12 * n : 20 + 12 * n]
        other = images[(which + 1 + (at[:, 7] * (len(images) - 1)).astype(int)) % len(images)]
        seen = np.maximum(seen, DIM * _placed(_piece(other, at[:, 8:11]), at[:, :7], 15.0))
    ground = 0.25 * drawn[:, 7, None, None]
    return np.rint(255 * np.clip(np.maximum(seen, ground) + 0.06 * noise, 0, 1)).astype(np.uint8)


def _piece(images: np.ndarray, drawn: np.ndarray) -> np.ndarray:
    """Three to five rows or columns of each image [N, 8, 8], the rest 0."""
    size = 3 + (3 * drawn[:, 0]).astype(int)
    first = (drawn[:, 1] * (SMALL + 1 - size)).astype(int)
    line = np.arange(SMALL)[None]
    kept = (line >= first[:, None]) & (line < (first + size)[:, None])
    return images * np.where((drawn[:, 2] < 0.5)[:, None, None], kept[:, :, None], kept[:, None, :])


def _placed(images: np.ndarray, drawn: np.ndarray, far: float) -> np.ndarray:
    """float32 [N, 8, 8] and numbers in 0..1 [N, 7] → [N, 32, 32]: turned, sheared, enlarged bilinearly, moved by up to
    `far` pixels, dimmed; 0 outside."""
    angle, shear = np.deg2rad(30 * drawn[:, 0] - 15), 0.4 * drawn[:, 1] - 0.2
    high = 16 + 8 * drawn[:, 2]
    wide = high * (0.8 + 0.4 * drawn[:, 3])
    moved = far * (2 * drawn[:, 4:6] - 1)
    y, x = np.mgrid[:SIDE, :SIDE].astype(np.float32) - (SIDE - 1) / 2
    y, x = y[None] - moved[:, 0, None, None], x[None] - moved[:, 1, None, None]
    cos, sin = np.cos(angle)[:, None, None], np.sin(angle)[:, None, None]
    y, x = cos * y + sin * x, cos * x - sin * y
    x = x + shear[:, None, None] * y
    rows = y * (SMALL / high)[:, None, None] + (SMALL - 1) / 2
    columns = x * (SMALL / wide)[:, None, None] + (SMALL - 1) / 2
    return _bilinear(images, rows, columns) * (0.6 + 0.4 * drawn[:, 6])[:, None, None]


def _bilinear(images: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Each image [N, h, w] at its points [N, H, W]; 0 outside."""
    n, h, w = images.shape
    padded = np.pad(images, ((0, 0), (1, 1), (1, 1)))
    rows, columns = np.clip(rows + 1, 0, h + 0.999), np.clip(columns + 1, 0, w + 0.999)
    top, left = rows.astype(int), columns.astype(int)
    down, right = (rows - top).astype(np.float32), (columns - left).astype(np.float32)
    flat, first = padded.reshape(-1), (np.arange(n) * (h + 2) * (w + 2))[:, None, None] + top * (w + 2) + left
    above = flat[first] * (1 - right) + flat[first + 1] * right
    below = flat[first + w + 2] * (1 - right) + flat[first + w + 3] * right
    return above * (1 - down) + below * down
