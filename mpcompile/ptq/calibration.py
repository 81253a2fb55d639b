"""Calibration inputs: arrays from an .npz or .npy file or from a folder of such, checked against the model's inputs."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mpcompile.errors import UsageError
from mpcompile.files import read_plain_arrays
from mpcompile.ptq.float_model import FloatModel, Port

SUFFIXES = (".npz", ".npy")
Arrays = dict[str, np.ndarray]


@dataclass(frozen=True)
class Calibration:
    """Samples by input, each with a batch axis in front; `batch`: the model's, None where it is free."""

    arrays: Arrays
    batch: int | None

    @property
    def count(self) -> int:
        return len(next(iter(self.arrays.values())))

    def batches(self, most: int) -> Iterator[Arrays]:
        """All samples, `most` at once where the batch is free, else so many as it is; what is left over is not run."""
        size = self.batch or most
        for at in range(0, self.count, size):
            found = {name: a[at : at + size] for name, a in self.arrays.items()}
            if self.batch is None or len(next(iter(found.values()))) == size:
                yield found

    def some(self, count: int, seed: int) -> Calibration:
        """So many of them, drawn without return; all where there are no more."""
        if count >= self.count:
            return self
        batch = self.batch or 1
        count = max(batch, count // batch * batch)
        chosen = np.sort(np.random.default_rng(seed).permutation(self.count)[:count])
        return Calibration({name: a[chosen] for name, a in self.arrays.items()}, self.batch)


def read_calibration(
    source: str | os.PathLike | np.ndarray | Mapping[str, np.ndarray], model: FloatModel
) -> Calibration:
    """Arrays by name (or one for a model of one input), or where they are: an .npz or .npy file, or a folder of such, each
    with one sample or several.

    Raises UsageError at files that cannot be read, and at arrays that are missing, empty, of other shapes or types than the
    model's inputs, or not finite.
    """
    if isinstance(source, (str, os.PathLike)):
        return _checked(_from_files(Path(source), model), model, str(source))
    arrays = dict(source) if isinstance(source, Mapping) else {"": np.asarray(source)}
    return _checked(_named(arrays, model, "calibration"), model, "calibration")


def _from_files(path: Path, model: FloatModel) -> Arrays:
    if path.is_dir():
        files = sorted(p for p in path.iterdir() if p.suffix in SUFFIXES)
        if not files:
            raise UsageError(f"{path} has no calibration inputs: it holds no .npz or .npy file")
    elif path.is_file():
        files = [path]
    else:
        raise UsageError(f"there are no calibration inputs: there is no file or folder {path}")
    parts = [_with_batch(_named(_read(file), model, str(file)), model, file) for file in files]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _read(path: Path) -> Arrays:
    stored = read_plain_arrays(path, "file of plain arrays")
    return stored if isinstance(stored, dict) else {"": stored}


def _named(arrays: Arrays, model: FloatModel, where: str) -> Arrays:
    """By the model's inputs; a single array may bear any name."""
    names = list(model.inputs)
    if len(names) == 1 == len(arrays):
        return {names[0]: next(iter(arrays.values()))}
    missing = [n for n in names if n not in arrays]
    if missing:
        had = ", ".join(n or "one array without a name" for n in arrays) or "none"
        raise UsageError(f"{where} has no array for the model's input {', '.join(missing)}: it has {had}")
    return {n: arrays[n] for n in names}


def _with_batch(arrays: Arrays, model: FloatModel, path: Path) -> Arrays:
    """Arrays of a file, which may hold one sample without a batch axis. Raises UsageError where they do not fit."""
    return {name: _fitted(a, model.inputs[name], str(path)) for name, a in arrays.items()}


def _fitted(array: np.ndarray, port: Port, where: str) -> np.ndarray:
    sizes = port.shape[1:]

    def fits(shape: tuple[int, ...]) -> bool:
        return len(shape) == len(sizes) and all(n in (None, s) for n, s in zip(sizes, shape))

    if array.ndim == len(sizes) and fits(array.shape):
        array = array[None]
    if array.ndim != len(sizes) + 1 or not fits(array.shape[1:]):
        wanted = "×".join("?" if n is None else str(n) for n in sizes)
        raise UsageError(
            f"{where}: input {port.name} has the shape {'×'.join(map(str, array.shape))}; samples of {wanted}, one or "
            "several along a first axis, would be accepted"
        )
    if port.dtype == np.float32 and array.dtype in (np.float64, np.float16):
        array = array.astype(np.float32)
    if array.dtype != port.dtype:
        raise UsageError(f"{where}: input {port.name} is {array.dtype}; {port.dtype} would be accepted")
    return array


def _checked(arrays: Arrays, model: FloatModel, where: str) -> Calibration:
    found = {name: _fitted(a, model.inputs[name], where) for name, a in arrays.items()}
    counts = {name: len(a) for name, a in found.items()}
    if len(set(counts.values())) > 1:
        told = ", ".join(f"{n} of {name}" for name, n in counts.items())
        raise UsageError(f"{where} holds different numbers of samples: {told}")
    batch = next(iter(model.inputs.values())).batch
    count = next(iter(counts.values()))
    if count < (batch or 1):
        raise UsageError(f"{where} holds {count or 'no'} samples; {batch or 1} or more would be accepted")
    for name, a in found.items():
        if a.dtype.kind == "f" and not np.isfinite(a).all():
            raise UsageError(
                f"{where}: input {name} holds {a[~np.isfinite(a)].flat[0]}; finite numbers would be accepted"
            )
    return Calibration(found, batch)
