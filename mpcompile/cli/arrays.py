"""Arrays by name in .npz files: what `run` and `verify` read and write. numpy only, no pickle."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from mpcompile.errors import UsageError
from mpcompile.files import atomic_path, read_plain_arrays


def read_arrays(path: str | os.PathLike, names: Sequence[str]) -> dict[str, np.ndarray]:
    """The arrays of a model's inputs `names`; a single one may bear any name, and others beside them are not read.

    Raises UsageError naming file and array.
    """
    path = Path(path)
    if not path.is_file():
        raise UsageError(f"{path}: no such file" if not path.exists() else f"{path} is not a file")
    found: list[str] = []

    def choose(stored: list[str]) -> list[str]:
        found.extend(stored)
        return found if len(names) == 1 == len(found) else [n for n in names if n in found]

    arrays = read_plain_arrays(path, ".npz file of plain arrays", choose)
    if not isinstance(arrays, dict):
        raise UsageError(f"{path} is a .npy file; pass a .npz with arrays named {', '.join(names)}")
    if len(names) == 1 == len(found):
        arrays = {names[0]: arrays[found[0]]}
    missing = [name for name in names if name not in arrays]
    if missing:
        raise UsageError(f"{path} has no array {', '.join(missing)}; it has {', '.join(found) or 'none'}")
    return arrays


def write_arrays(path: str | os.PathLike, arrays: Mapping[str, np.ndarray]) -> None:
    """A .npz, whole or not at all; np.savez takes no array of the name of one of its own arguments."""
    with atomic_path(path) as temporary, zipfile.ZipFile(temporary, "w") as file:
        for name, array in arrays.items():
            with file.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, np.asanyarray(array), allow_pickle=False)
