"""Reads the TOML of a board or of a fleet, and validates it against a type by msgspec. Errors name file and key."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from mpcompile.errors import TargetError

File = TypeVar("File", bound=msgspec.Struct)

_WORDS = {
    "str": "a string",
    "int": "a whole number",
    "float": "a number",
}
"""msgspec's names of what a value must be, in words."""

_KEYS = {
    "vector_bits": "64, 128, 256 or 512",
    "features": "a list of names",
    "mattr": "a list of names",
    "cpus": 'a list of ["vendor", family, first model, last model]',
    "boards": "a list of names or .toml paths of boards, best first",
}
"""The same, of keys whose types are not told by one word."""


def read_toml(path: Path) -> dict:
    """Raises TargetError naming the file."""
    try:
        with open(path, "rb") as file:
            return tomllib.load(file)
    except OSError as error:
        raise TargetError(f"cannot read target {path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:  # of numbers with thousands of digits, and lists in lists, too
        raise TargetError(f"target {path} is no TOML: {error}") from error


def read_keys(path: Path, table: dict, kind: type[File], keys: str) -> File:
    """What a TOML holds, as a `kind`. Raises TargetError in one line that names the file, the key and what it must be;
    `keys` introduces the list of those that there are."""
    try:
        return msgspec.convert(table, kind)
    except msgspec.ValidationError as error:
        known = f"{keys} {', '.join(kind.__struct_fields__)}"
        raise TargetError(f"target {path}: {_in_one_line(str(error), table, known)}") from error


def _in_one_line(said: str, table: dict, known: str) -> str:
    """msgspec's "Expected `int`, got `str` - at `$.cores`" in our words, with the value itself."""
    what, _, where = said.partition(" - at ")
    if missing := re.fullmatch(r"Object missing required field `(.*)`", what):
        return f"{missing[1]}: is missing"
    if unknown := re.fullmatch(r"Object contains unknown field `(.*)`", what):
        return f"{unknown[1]}: unknown key; {known}"
    key, *at = re.findall(r"\w+", where)
    return f"{key}: {_must(key, at, what, table[key])}"


def must_be(key: str, what: str, value: object) -> str:
    """What is said of a value that does not do."""
    return f"must be {_KEYS.get(key, what)}, not {value!r}"


def _must(key: str, at: list[str], what: str, value: Any) -> str:
    if "matching regex" in what:
        return f"{value[int(at[0])]!r} must begin with + or -"
    expected = re.match(r"Expected `(\w+)[^`]*`( [<>])?", what)
    if expected is None or key in _KEYS:
        return must_be(key, what, value)
    return must_be(key, "positive" if expected[2] else _WORDS[expected[1]], value)
