"""Images for the demo: scikit-learn's handwritten digits, or a data set of yours from a path. numpy only, no download.

no path                                          scikit-learn's digits, inside its wheel: 1 797 real 8×8 images
a folder with train-images-idx3-ubyte[.gz] …     MNIST, Fashion-MNIST and all that share their IDX files
a folder with data_batch_1.bin … test_batch.bin  CIFAR-10, the "binary version"
a .npz file                                      train_images, train_labels, test_images, test_labels: uint8
                                                 [N, H, W] or [N, H, W, C], labels from 0
"""

from __future__ import annotations

import gzip
import hashlib
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mpcompile.errors import MissingDependency, UsageError

SIDE = 32
IMAGES = 1600
"""Training images that a run of a few minutes can take: of a larger set the first ones are used."""
TEST_IMAGES = 1000


@dataclass(frozen=True, eq=False)
class Data:
    """Images uint8 [N, C, 32, 32], labels int64 [N], what they are called, and how many classes there are."""

    name: str
    train: tuple[np.ndarray, np.ndarray]
    test: tuple[np.ndarray, np.ndarray]
    classes: int

    @property
    def channels(self) -> int:
        return self.train[0].shape[1]

    @property
    def fingerprint(self) -> str:
        """sha256 over every pixel and label."""
        parts = hashlib.sha256()
        for array in (*self.train, *self.test):
            parts.update(f"{array.dtype}{array.shape}".encode() + np.ascontiguousarray(array).tobytes())
        return parts.hexdigest()


def scaled(images: np.ndarray) -> np.ndarray:
    """uint8 → the network's input: float32 in −1..1."""
    return images.astype(np.float32) / np.float32(127.5) - np.float32(1)


def enlarge(images: np.ndarray, side: int = SIDE) -> np.ndarray:
    """uint8 [N, C, H, W] → uint8 [N, C, side, side]: bilinear, pixel centres aligned."""

    def weights(n: int) -> np.ndarray:
        at = np.clip((np.arange(side) + 0.5) * n / side - 0.5, 0, n - 1)
        low = np.minimum(at.astype(int), max(n - 2, 0))
        matrix = np.zeros((side, n), np.float32)
        matrix[np.arange(side), low] = 1 - (at - low)
        matrix[np.arange(side), np.minimum(low + 1, n - 1)] += at - low
        return matrix

    if images.shape[2:] == (side, side):
        return images
    rows, columns = weights(images.shape[2]), weights(images.shape[3])
    return np.rint(np.einsum("yh,nchw,xw->ncyx", rows, images.astype(np.float32), columns, optimize=True)).astype(
        np.uint8
    )


def load(path: Path | None, images: int = IMAGES) -> Data:
    """The data set at `path` (the first `images` to train on), or the digits. Raises UsageError where there is none."""
    if path is None:
        return digits(images)
    if path.is_dir() and (path / "data_batch_1.bin").exists():
        name, read = "CIFAR-10", cifar
    elif path.is_dir():
        name, read = path.resolve().name, idx_set
    elif path.suffix == ".npz" and path.exists():
        name, read = path.stem, npz
    else:
        raise UsageError(f"{path} is neither a folder with IDX or CIFAR-10 files nor an .npz file")
    try:
        train, test = read(path)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise UsageError(f"{path} cannot be read: {' '.join(str(error).split())}") from error
    for part, (pixels, labels) in (("train", train), ("test", test)):
        if pixels.dtype != np.uint8 or pixels.ndim not in (3, 4) or labels.shape != pixels.shape[:1] or not labels.size:
            raise UsageError(
                f"{path}: the {part} images are {pixels.dtype} {pixels.shape} with labels {labels.shape}, "
                f"not uint8 [N, H, W] or [N, H, W, C] with N labels"
            )
        if labels.dtype.kind not in "iu" or labels.min() < 0:
            raise UsageError(f"{path}: the {part} labels are no whole numbers from 0")
    classes = int(max(train[1].max(), test[1].max())) + 1
    return Data(name, _first(train, images), _first(test, TEST_IMAGES), classes)


def digits(images: int = IMAGES) -> Data:
    """At most 1 437 images to train on, 360 to test with, shuffled once."""
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        raise MissingDependency("the demo's digits come with scikit-learn: pip install scikit-learn") from None
    found = load_digits()
    order = np.random.default_rng(0).permutation(len(found.images))
    pixels = np.rint(found.images[order] * (255 / 16)).astype(np.uint8)
    labels = found.target[order]
    return Data("digits", _first((pixels[360:], labels[360:]), images), _first((pixels[:360], labels[:360]), 360), 10)


def npz(path: Path):
    with np.load(path, allow_pickle=False) as arrays:
        try:
            return tuple((arrays[f"{part}_images"], arrays[f"{part}_labels"]) for part in ("train", "test"))
        except KeyError as missing:
            raise UsageError(f"{path} has no array {missing}") from None


def idx_set(folder: Path):
    return tuple(idx(folder, part) for part in ("train", "t10k"))


def idx(folder: Path, part: str):
    """One part (train or t10k) of an IDX data set.

    A file is two zero bytes, a type byte (8 = uint8), the rank, the shape in big-endian u32, the data.
    """

    def read(kind: str) -> np.ndarray:
        name = f"{part}-{kind}-ubyte"
        file = next((f for f in (folder / name, folder / f"{name}.gz") if f.exists()), None)
        if file is None:
            raise UsageError(f"{folder} has no {name} or {name}.gz")
        raw = gzip.decompress(file.read_bytes()) if file.suffix == ".gz" else file.read_bytes()
        shape = np.frombuffer(raw, ">u4", raw[3], 4) if raw[:3] == b"\0\0\x08" else ()
        if not len(shape) or len(raw) != 4 + 4 * len(shape) + int(np.prod(shape, dtype=np.int64)):
            raise UsageError(f"{file} is no IDX file of uint8, or it is cut")
        return np.frombuffer(raw, np.uint8, offset=4 + 4 * len(shape)).reshape(shape.astype(int))

    return read("images-idx3"), read("labels-idx1")


def cifar(folder: Path):
    """Records of one label byte and 3×32×32 bytes, channels first."""

    def read(names: list[str]):
        raw = np.concatenate([np.fromfile(folder / n, np.uint8).reshape(-1, 3073) for n in names])
        return raw[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1), raw[:, 0]

    return read([f"data_batch_{n}.bin" for n in range(1, 6)]), read(["test_batch.bin"])


def _first(part: tuple[np.ndarray, np.ndarray], count: int) -> tuple[np.ndarray, np.ndarray]:
    """[N, H, W] or [N, H, W, C] → [n, C, 32, 32], labels int64."""
    images, labels = part[0][:count], part[1][:count].astype(np.int64)
    images = images[:, None] if images.ndim == 3 else images.transpose(0, 3, 1, 2)
    return enlarge(images), labels
