"""Reads a board's TOML, one that ships or the user's own. Errors name file and key.

    description = "AVX2 desktop of mine"    # a line for people
    arch = "x86_64"                         # x86_64, aarch64 or armv7l
    mcpu = "haswell"                        # LLVM's name of the CPU
    features = ["avx2", "fma", "popcnt"]    # as /proc/cpuinfo spells them; a CPU that lacks one refuses the bundle
    vector_bits = 256                       # of its vector registers: 64, 128, 256 or 512
    popcount_bitmacs_per_cycle = 96         # products of one bit by AND, POPCNT, ADD: of one core, from registers
    dot_macs_per_cycle = 26                 # products of any 8 bits in 32-bit sums: of one core, from registers
    source = "measured with benchmarks/roofline.py"     # where these numbers come from
    mattr = ["+prfchw"]                     # features that LLVM is told beside those of mcpu, each with + or -
    mtriple = "x86_64-linux-gnu"            # LLVM's triple, for boards of another architecture; left out: the host's own
    cores = 4                               # physical cores
    l1d_kib = 32                            # first-level data cache of a core, KiB
    l2_kib = 256                            # second-level cache of a core, KiB
    clock_mhz = 3500                        # the highest clock
    families = ["popcount", "dot", "lookup", "depthwise"]   # kernel families that are worth measuring on it
    dot16_macs_per_cycle = 52               # products whose sums of two fit 16 bits; 0: no faster than any 8 bits
    dot8_macs_per_cycle = 60                # products that fit 8 bits, before sums are widened; 0: no kernel adds so
    lookup_macs_per_cycle = 100             # products of one-bit weights by table look-ups; 0: it has no such kernel
    lookup_widen = 3.0                      # what it costs to widen such a sum, in look-ups; 0: 16 bits from the start
    cpus = [["GenuineIntel", 6, 60, 63]]    # vendor, family, first and last model that native knows as this board

Keys that Target has no default for must be given.
"""

from __future__ import annotations

import os
import tomllib
from pathlib import Path

from mpcompile.errors import TargetError
from mpcompile.targets.target import FAMILIES, Target

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
    "families": (list, False),
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
    for key in ("features", "mattr", "families"):
        if key in fields:
            if not all(isinstance(item, str) and item for item in fields[key]):
                refuse(key, f"must be a list of names, not {fields[key]!r}")
            fields[key] = tuple(fields[key])
    for item in fields.get("families", ()):
        if item not in FAMILIES:
            refuse("families", f"{item!r} is not one of {', '.join(FAMILIES)}")
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
