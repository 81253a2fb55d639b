"""Images for a search: scikit-learn's digits, or a data set from a path; nothing is downloaded.

| path                                                 | what it is                                                  |
|------------------------------------------------------|-------------------------------------------------------------|
| (none)                                               | scikit-learn's digits in clutter, see digits.py             |
| a folder with `train-images-idx3-ubyte[.gz]` …       | MNIST, Fashion-MNIST: IDX files                             |
| a folder with `data_batch_1.bin` … `test_batch.bin`  | CIFAR-10, the "binary version"                              |
| a folder with `data_batch_1` … `test_batch`          | CIFAR-10's "python version" is refused: it is pickle        |
| a folder with train/CLASS/*.png and test/CLASS/*.png | image folders (or val/); .jpg, .jpeg, .bmp, .ppm too        |
| a `.npz` file                                        | train_images, train_labels, test_… (or x_train, y_train, …) |

All become uint8 [N, C, side, side]; what is smaller or larger is enlarged or shrunk, bilinearly.
"""

from __future__ import annotations

import gzip
import hashlib
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from mpcompile.errors import MissingDependency, UsageError
from mpcompile.search.digits import Arrays, digits

PICTURES = (".png", ".jpg", ".jpeg", ".bmp", ".ppm")


@dataclass(frozen=True, eq=False)
class Images:
    """pixels uint8 [N, C, side, side], labels int64 [N]."""

    pixels: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def batch(self, index: Tensor, shift: int, draw: torch.Generator) -> tuple[Tensor, Tensor]:
        """These, moved by up to `shift` pixels: float32 [N, C, H, W] in 0..1, and their labels."""
        return shifted(self.pixels[index], shift, draw).float() / 255, self.labels[index]

    def split(self, share: float, seed: int) -> tuple[Images, Images]:
        """Two disjoint parts, the second with this share of the images, drawn by `seed`; neither is empty."""
        order = torch.randperm(len(self), generator=torch.Generator().manual_seed(seed))
        second = min(max(1, round(share * len(self))), len(self) - 1)
        first, last = order[second:], order[:second]
        return Images(self.pixels[first], self.labels[first]), Images(self.pixels[last], self.labels[last])


@dataclass(frozen=True, eq=False)
class DataSet:
    """What is trained with, and what accuracy is measured on."""

    name: str
    train: Images
    test: Images
    classes: int

    @property
    def channels(self) -> int:
        return self.train.pixels.shape[1]

    @property
    def side(self) -> int:
        return self.train.pixels.shape[2]

    @property
    def fingerprint(self) -> str:
        """sha256 over every pixel and label."""
        parts = hashlib.sha256()
        for images in (self.train, self.test):
            parts.update(
                str(tuple(images.pixels.shape)).encode()
                + images.pixels.numpy().tobytes()
                + images.labels.numpy().tobytes()
            )
        return parts.hexdigest()


def load(
    path: str | Path | None = None, *, side: int = 32, train: int | None = None, test: int | None = None
) -> DataSet:
    """The data set at `path`, or the digits; the first `train` and `test` images of it, all without.

    Raises UsageError naming the path where there is none, or it is damaged; MissingDependency where a package is not
    installed.
    """
    if path is None:
        return _made("digits in clutter", digits(train, test), side, train, test, "scikit-learn's digits")
    path = Path(path)
    if path.is_dir():
        parts = _folder(path)
    elif path.is_file() and path.suffix == ".npz":
        parts = _npz(path)
    elif path.exists():
        raise UsageError(f"{path} is no data set: an .npz file or a folder with IDX, CIFAR-10 or image files would be")
    else:
        raise UsageError(f"there is no data set {path}")
    return _made(path.stem, parts, side, train, test, str(path))


def shifted(pixels: Tensor, most: int, generator: torch.Generator) -> Tensor:
    """uint8 [N, C, H, W], each image moved by −most..most pixels along both axes; 0 comes in from outside."""
    if not most:
        return pixels
    n, _, h, w = pixels.shape
    padded = nn_pad(pixels, most)
    moves = torch.randint(0, 2 * most + 1, (n, 2), generator=generator).tolist()
    return torch.stack([padded[i, :, y : y + h, x : x + w] for i, (y, x) in enumerate(moves)])


def nn_pad(pixels: Tensor, most: int) -> Tensor:
    """`pixels` with `most` rows and columns of 0 on every side."""
    return torch.nn.functional.pad(pixels, (most,) * 4)


# -- sources: (train, test) ------------------------------------------------------------------------------------------
def _folder(path: Path) -> tuple[Arrays, Arrays]:
    if (path / "data_batch_1.bin").exists():
        return _cifar(path, [f"data_batch_{n}.bin" for n in range(1, 6)]), _cifar(path, ["test_batch.bin"])
    if (path / "data_batch_1").exists():
        raise UsageError(
            f"{path} holds CIFAR-10's Python version, which is pickle and not read: take its binary version"
        )
    if (path / "train").is_dir():
        test = next((path / name for name in ("test", "val") if (path / name).is_dir()), None)
        if test is None:
            raise UsageError(f"{path} has train/, but neither test/ nor val/")
        classes = _classes(path / "train")
        return _pictures(path / "train", classes), _pictures(test, classes)
    return _idx(path, "train"), _idx(path, "t10k")


def _npz(path: Path) -> tuple[Arrays, Arrays]:
    try:
        with np.load(path, allow_pickle=False) as arrays:
            names = [(f"{p}_images", f"{p}_labels") for p in ("train", "test")]
            if names[0][0] not in arrays:
                names = [(f"x_{p}", f"y_{p}") for p in ("train", "test")]
            for name in (n for pair in names for n in pair):
                if name not in arrays:
                    raise UsageError(f"{path} has no array {name}: it has {', '.join(arrays.files)}")
            train, test = ((arrays[i], arrays[y]) for i, y in names)
            return train, test
    except (ValueError, OSError, EOFError, TypeError, AttributeError, zlib.error, zipfile.BadZipFile) as error:
        raise UsageError(f"{path} is no .npz file of arrays ({error})") from error


def _idx(folder: Path, part: str) -> Arrays:
    """One part (train or t10k): two zero bytes, a type byte (8 = uint8), the rank, the shape in big-endian u32, the
    values."""

    def read(kind: str) -> np.ndarray:
        name = f"{part}-{kind}-ubyte"
        file = next((f for f in (folder / name, folder / f"{name}.gz") if f.exists()), None)
        if file is None:
            raise UsageError(f"{folder} is no data set: it has no {name} or {name}.gz, no CIFAR-10 files and no train/")
        try:
            raw = gzip.decompress(file.read_bytes()) if file.suffix == ".gz" else file.read_bytes()
        except (OSError, EOFError, zlib.error) as error:
            raise UsageError(f"cannot read {file}: {error}") from error
        rank = raw[3] if raw[:3] == b"\0\0\x08" and len(raw) >= 4 + 4 * raw[3] else 0
        shape = np.frombuffer(raw, ">u4", rank, 4)
        if not rank or len(raw) != 4 + 4 * len(shape) + int(np.prod(shape, dtype=np.int64)):
            raise UsageError(f"{file} is no IDX file of uint8, or it is cut")
        return np.frombuffer(raw, np.uint8, offset=4 + 4 * len(shape)).reshape(shape.astype(int))

    return read("images-idx3"), read("labels-idx1")


def _cifar(folder: Path, names: list[str]) -> Arrays:
    """Records of one label byte and 3×32×32 bytes, channels first."""
    parts = []
    for file in (folder / n for n in names):
        if not file.exists():
            raise UsageError(f"{folder} has no {file.name}")
        raw = np.fromfile(file, np.uint8)
        if not raw.size or raw.size % 3073:
            raise UsageError(f"{file} is no CIFAR-10 file, or it is cut: it is no multiple of 3073 bytes")
        parts.append(raw.reshape(-1, 3073))
    records = np.concatenate(parts)
    return records[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1), records[:, 0]


def _classes(folder: Path) -> list[str]:
    names = sorted(p.name for p in folder.iterdir() if p.is_dir())
    if len(names) < 2:
        raise UsageError(f"{folder} has {len(names)} folder(s) of images: one for each class would be accepted")
    return names


def _pictures(folder: Path, classes: list[str]) -> Arrays:
    """Every picture below folder/CLASS, cut to its middle square; all of the size of the first, grey where all are."""
    try:
        from PIL import Image, UnidentifiedImageError
    except ImportError:
        raise MissingDependency(
            "image folders are read with Pillow, which is not installed: pip install pillow"
        ) from None
    files = [
        (f, label)
        for label, name in enumerate(classes)
        for f in sorted((folder / name).rglob("*"))
        if f.suffix.lower() in PICTURES
    ]
    if not files:
        raise UsageError(f"{folder} has no image in {', '.join(f'{c}/' for c in classes[:3])} …")
    size, pixels = 0, []
    for file, _ in files:
        try:
            with Image.open(file) as picture:
                square = min(picture.size)
                left, top = ((n - square) // 2 for n in picture.size)
                size = size or square
                found = picture.convert("RGB").resize(
                    (size, size), Image.Resampling.BILINEAR, (left, top, left + square, top + square)
                )
        except (OSError, UnidentifiedImageError) as error:
            raise UsageError(f"cannot read the image {file}: {error}") from error
        pixels.append(np.asarray(found))
    return np.stack(pixels), np.array([label for _, label in files])


# -- to one form -----------------------------------------------------------------------------------------------------
def _made(
    name: str, parts: tuple[Arrays, Arrays], side: int, train: int | None, test: int | None, where: str
) -> DataSet:
    to_train, to_test = (_images(*part, side, count, where) for part, count in zip(parts, (train, test), strict=True))
    if to_train.pixels.shape[1] != to_test.pixels.shape[1]:
        raise UsageError(
            f"{where}: images of {to_train.pixels.shape[1]} channels to train on, "
            f"of {to_test.pixels.shape[1]} to test with"
        )
    labels = torch.cat([to_train.labels, to_test.labels])
    return DataSet(name, to_train, to_test, int(labels.max()) + 1)


def _images(pixels: np.ndarray, labels: np.ndarray, side: int, count: int | None, where: str) -> Images:
    labels = labels.reshape(-1)
    if pixels.dtype != np.uint8 or pixels.ndim not in (3, 4) or (pixels.ndim == 4 and pixels.shape[3] not in (1, 3)):
        raise UsageError(
            f"{where}: images {pixels.dtype} of shape {list(pixels.shape)}; uint8 [N, H, W] or [N, H, W, 1 or 3] "
            "would be accepted"
        )
    if len(pixels) != len(labels) or len(labels) < 2 or not np.issubdtype(labels.dtype, np.integer) or labels.min() < 0:
        raise UsageError(
            f"{where}: {len(pixels)} images and {len(labels)} labels; at least two of both, labels from 0, "
            "would be accepted"
        )
    pixels, labels = pixels[:count], labels[:count].astype(np.int64)
    pixels = pixels[:, None] if pixels.ndim == 3 else pixels.transpose(0, 3, 1, 2)
    return Images(_resized(torch.from_numpy(np.array(pixels, order="C")), side), torch.from_numpy(labels))


def _resized(pixels: Tensor, side: int) -> Tensor:
    """uint8 [N, C, H, W] → [N, C, side, side]."""
    if pixels.shape[2:] == (side, side):
        return pixels
    done = [
        torch.nn.functional.interpolate(
            part.float(), (side, side), mode="bilinear", antialias=True, align_corners=False
        )
        .round()
        .clamp(0, 255)
        .to(torch.uint8)
        for part in pixels.split(1000)
    ]
    return torch.cat(done)
