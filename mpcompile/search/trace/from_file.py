"""`module = "FILE:FUNCTION"` of a configuration: the function is found, called, and what it returns made a Problem."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from torch import nn

from mpcompile.errors import ModelError
from mpcompile.search.trace.plan import said_of
from mpcompile.search.trace.task import Problem

KEYS = tuple(f.name for f in fields(Problem))
NEEDED = "model", "train", "val"


def problem_of(module: str, folder: Path) -> Problem:
    """`module` is FILE:FUNCTION or PACKAGE.MODULE:FUNCTION, looked for in `folder` first. Raises ModelError, which names
    the key, where it cannot be imported, raises an error itself, or returns something else."""
    name, _, function = module.partition(":")
    if not name or not function:
        raise ModelError(f'module must be like "nets:task", a file or module and a function of it, not {module!r}')
    sys.path.insert(0, str(folder.resolve()))
    try:
        found = getattr(importlib.import_module(name.removesuffix(".py")), function)
        given = found()
    except Exception as error:  # it is a user's code: whatever it raises
        raise ModelError(f"module {module}: {type(error).__name__}: {said_of(error)}") from error
    finally:
        sys.path.remove(str(folder.resolve()))
    return _problem(given, module)


def _problem(given: Any, module: str) -> Problem:
    if isinstance(given, Problem):
        return given
    if isinstance(given, (tuple, list)) and len(given) == 3 and isinstance(given[0], (nn.Module, str, os.PathLike)):
        given = dict(zip(NEEDED, given))
    if not isinstance(given, Mapping):
        raise ModelError(
            f"module {module} returns a {type(given).__name__}: (model, train, val), or a dict of {', '.join(KEYS)}, would "
            "be accepted"
        )
    for key in given:
        if key not in KEYS:
            raise ModelError(f"module {module} returns a dict with {key}; {', '.join(KEYS)} would be accepted")
    for key in NEEDED:
        if key not in given:
            raise ModelError(f"module {module} returns a dict without {key}; {', '.join(NEEDED)} are needed")
    return Problem(**given)
