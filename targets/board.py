"""Reads a board's TOML, one that ships or the user's own. Errors name file and key."""

from __future__ import annotations

import os
import tomllib
from pathlib import Path

from mpcompile.errors import TargetError
from mpcompile.targets.target import Target

FOLDER = Path(__file__).parent

# key → (type, required). Lists are lists of strings.
_KEYS = {
    "description": (str, True),
    "arch": (str, True),
    "mcpu": (str, True),
    "features": (list, True),
    "vector_bits": (int, True),
    "popcount_bitmacs_per_cycle": (float, True),
    "dot_macs_per_cycle": (float, True),
    "source": (str, True),
    "mattr": (list, False),
    "mtriple": (str, False),
    "cores": (int, False),
    "l1d_kib": (int, False),
    "l2_kib": (int, False),
    "clock_mhz": (int, False),
    "dot16_macs_per_cycle": (float, False),
    "dot8_macs_per_cycle": (float, False),
    "lookup_macs_per_cycle": (float, False),
    "lookup_widen": (float, False),
    "cpus": (list, False),
}


MAY_BE_ZERO = ("lookup_widen",)

BOARDS = "boards"
"""The key that makes a TOML one of a fleet (fleet.py)."""


def list_boards() -> list[str]:
    """Names of the boards that ship."""
    return [p.stem for p in shipped() if BOARDS not in read_toml(p)]


def shipped() -> list[Path]:
    """The TOML of each board and fleet that ships, by name."""
    return sorted(FOLDER.glob("*.toml"))


def load_board(name_or_path: str | os.PathLike) -> Target:
    """A shipped board's name, or the path of a TOML. Raises TargetError naming the file and the key."""
    path = path_of(name_or_path)
    table = read_toml(path)
    if BOARDS in table:
        names = ", ".join(map(str, table[BOARDS])) if isinstance(table[BOARDS], list) else "nothing"
        raise TargetError(f"target {name_or_path} stands for several boards, here it must be one: use {names}")
    return _target(path, table)


def path_of(name_or_path: str | os.PathLike) -> Path:
    """The TOML of a shipped name, or that path. Raises TargetError where nothing of that name ships."""
    path = Path(name_or_path)
    if path.suffix == ".toml":
        return path
    names = [p.stem for p in shipped()]
    if path.name != str(name_or_path) or path.name not in names:
        raise TargetError(
            f"there is no target {name_or_path}: use {', '.join(['native', *names])}, or the path of a .toml file"
        )
    return FOLDER / f"{path.name}.toml"


def read_toml(path: Path) -> dict:
    """Raises TargetError naming the file."""
    try:
        with open(path, "rb") as file:
            return tomllib.load(file)
    except OSError as error:
        raise TargetError(f"cannot read target {path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise TargetError(f"target {path} is no TOML: {error}") from error


def _target(path: Path, table: dict) -> Target:
    def refuse(key: str, why: str):
        raise TargetError(f"target {path}: {key}: {why}")

    for key in table:
        if key not in _KEYS:
            refuse(key, f"unknown key; known are {', '.join(_KEYS)}")
    fields: dict = {"name": path.stem}
    for key, (kind, required) in _KEYS.items():
        if key not in table:
            if required:
                refuse(key, "is missing")
            continue
        value = table[key]
        if kind is float and type(value) is int:
            value = float(value)
        if type(value) is not kind:
            refuse(key, f"must be {_NAMES[kind]}, not {value!r}")
        if kind in (int, float) and not (0 < value < 1e9 or (value == 0 and key in MAY_BE_ZERO)):
            refuse(key, f"must be positive, not {value!r}")
        fields[key] = value
    for key in ("features", "mattr"):
        if key in fields:
            if not all(isinstance(item, str) and item for item in fields[key]):
                refuse(key, f"must be a list of names, not {fields[key]!r}")
            fields[key] = tuple(fields[key])
    for item in fields.get("mattr", ()):
        if item[0] not in "+-":
            refuse("mattr", f"{item!r} must begin with + or -")
    if fields["vector_bits"] not in (64, 128, 256, 512):
        refuse("vector_bits", f"must be 64, 128, 256 or 512, not {fields['vector_bits']}")
    if "cpus" in fields:
        if not all(isinstance(c, list) and [type(v) for v in c] == [str, int, int, int] for c in fields["cpus"]):
            refuse("cpus", 'must be a list of ["vendor", family, first model, last model]')
        fields["cpus"] = tuple(tuple(c) for c in fields["cpus"])
    return Target(**fields)


_NAMES = {str: "a string", int: "a whole number", float: "a number", list: "a list"}
