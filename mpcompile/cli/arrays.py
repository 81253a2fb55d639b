"""Arrays by name in .npz files: what `run` and `verify` read and write. numpy only, no pickle."""

from __future__ import annotations

import os
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from mpcompile.errors import UsageError
from mpcompile.files import atomic_path


def read_arrays(path: str | os.PathLike, names: Sequence[str]) -> dict[str, np.ndarray]:
    """The arrays of a model's inputs `names`; a single one may bear any name, and others beside them are not read.

    Raises UsageError naming file and array.
    """
    path = Path(path)
    if not path.is_file():
        raise UsageError(f"{path}: no such file" if not path.exists() else f"{path} is not a file")
    try:
        stored = np.load(path, allow_pickle=False)
        if isinstance(stored, np.ndarray):
            raise UsageError(f"{path} is a .npy file; pass a .npz with arrays named {', '.join(names)}")
        with stored:
            found = stored.files
            chosen = dict(zip(names, found)) if len(names) == 1 == len(found) else {n: n for n in names if n in found}
            arrays = {name: stored[key] for name, key in chosen.items()}
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile, zlib.error, NotImplementedError) as error:
        told = " ".join(str(error).split())
        if "pickle" in told:  # numpy takes all that it does not know for pickle, and advises to trust it
            told = "at most pickled objects, which are not read"
        raise UsageError(f"{path} is no .npz file of plain arrays ({told})") from error
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
