"""Reads a board's TOML, one that ships or the user's own. Errors name file and key.

    description = "AVX2 desktop of mine"    # a line for people
    arch = "x86_64"                         # x86_64, aarch64 or armv7l; of a CUDA device sm_87, say
    mcpu = "haswell"                        # LLVM's name of the CPU
    features = ["avx2", "fma", "popcnt"]    # as /proc/cpuinfo spells them; a CPU that lacks one refuses the bundle
    vector_bits = 256                       # of its vector registers: 64, 128, 256 or 512
    popcount_bitmacs_per_cycle = 96         # products of one bit by AND, POPCNT, ADD: of one core, from registers
    dot_macs_per_cycle = 26                 # products of any 8 bits in 32-bit sums: of one core, from registers
    source = "measured with benchmarks/roofline.py"     # where these numbers come from
    mattr = ["+prfchw"]                     # features that LLVM is told beside those of mcpu, each with + or -
    mtriple = "x86_64-linux-gnu"            # LLVM's triple, for boards of another architecture; left out: the host's own
    cores = 4                               # physical cores; of a CUDA device, multiprocessors
    kind = "cpu"                            # of device: cpu or cuda; more may be registered
    dot16_macs_per_cycle = 52               # products whose sums of two fit 16 bits; 0: no faster than any 8 bits
    dot8_macs_per_cycle = 60                # products that fit 8 bits, before sums are widened; 0: no kernel adds so
    lookup_macs_per_cycle = 100             # products of one-bit weights by table look-ups; 0: it has no such kernel
    lookup_widen = 3.0                      # what it costs to widen such a sum, in look-ups; 0: 16 bits from the start
    cpus = [["GenuineIntel", 6, 60, 63]]    # vendor, family, first and last model that native knows as this board

Keys that Target has no default for must be given.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Literal

from msgspec import Meta, Struct

from mpcompile.errors import TargetError
from mpcompile.targets.kind import KINDS
from mpcompile.targets.target import Target
from mpcompile.targets.toml_file import read_keys, read_toml

FOLDER = Path(__file__).parent

Name = Annotated[str, Meta(min_length=1)]
Rate = Annotated[float, Meta(gt=0, lt=1e9)]


class BoardFile(Struct, forbid_unknown_fields=True, kw_only=True):
    """The keys of a board's TOML; those with a default may be left out. What they mean stands in Target."""

    description: str
    arch: str
    mcpu: str
    features: tuple[Name, ...]
    vector_bits: Literal[64, 128, 256, 512]
    popcount_bitmacs_per_cycle: Rate
    dot_macs_per_cycle: Rate
    source: str
    kind: str = "cpu"
    mattr: tuple[Annotated[str, Meta(pattern="^[+-]")], ...] = ()
    mtriple: str = ""
    cores: Annotated[int, Meta(gt=0, lt=10**9)] = 1
    dot16_macs_per_cycle: Rate | None = None
    dot8_macs_per_cycle: Rate | None = None
    lookup_macs_per_cycle: Rate | None = None
    lookup_widen: Annotated[float, Meta(ge=0, lt=1e9)] | None = None
    cpus: tuple[tuple[str, int, int, int], ...] = ()


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


def _target(path: Path, table: dict) -> Target:
    found = read_keys(path, table, BoardFile, "known are")
    if found.kind not in KINDS:
        raise TargetError(f"target {path}: kind: {found.kind!r} is not one of {', '.join(KINDS)}")
    return Target(name=path.stem, **{key: getattr(found, key) for key in table})
