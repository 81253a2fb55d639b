"""Training state on disk: arrays and numbers in one .npz, nothing that needs pickle; written whole or not at all."""

from __future__ import annotations

import json
import os
import struct
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mpcompile.files import atomic_path

STRUCTURE = "structure.json"
DAMAGED = (
    *(OSError, EOFError, ValueError, KeyError, TypeError, IndexError),
    *(zipfile.BadZipFile, zlib.error, struct.error),
    *(NotImplementedError, RuntimeError),  # a damaged header may ask for a method that zipfile lacks, or a password
)
"""What reading a damaged archive raises."""


def save(path: str | os.PathLike, state: dict) -> None:
    """`state`: nested dicts (keys str or int) and lists of tensors, numbers, strings, booleans and None."""
    arrays: dict[str, np.ndarray] = {}

    def plain(value):
        if isinstance(value, Tensor):
            arrays[f"tensor{len(arrays)}"] = value.detach().cpu().numpy()
            return {"tensor": len(arrays) - 1}
        if isinstance(value, dict):
            return {"dict": [[k, plain(v)] for k, v in value.items()]}
        if isinstance(value, (list, tuple)):
            return {"list": [plain(v) for v in value]}
        if value is None or isinstance(value, (bool, int, float, str)):
            return {"value": value}
        raise TypeError(f"a checkpoint cannot hold a {type(value).__name__}")

    text = json.dumps(plain(state))
    with atomic_path(path) as temporary, open(temporary, "wb") as file:
        np.savez(file, allow_pickle=False, **arrays, **{STRUCTURE: np.array(text)})
        file.flush()
        os.fsync(file.fileno())


def load(path: str | os.PathLike) -> dict | None:
    """What `save` wrote; None where there is no file, or it is damaged or none of ours (the work is then done again)."""
    if not Path(path).exists():
        return None
    try:
        with zipfile.ZipFile(path) as archive:
            if archive.testzip() is not None:  # before any array's shape is believed
                return None
        with np.load(path, allow_pickle=False) as arrays:
            structure = json.loads(str(arrays[STRUCTURE]))

            def restored(node) -> Any:
                if "tensor" in node:
                    return torch.from_numpy(np.array(arrays[f"tensor{node['tensor']}"]))
                if "dict" in node:
                    return {k: restored(v) for k, v in node["dict"]}
                if "list" in node:
                    return [restored(v) for v in node["list"]]
                return node["value"]

            return restored(structure)
    except DAMAGED:
        return None
