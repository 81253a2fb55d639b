"""Fleets: a TOML that names boards, for bundles that run on all of them. Errors name file and key."""

from __future__ import annotations

import os
from typing import Annotated

from msgspec import Meta, Struct

from mpcompile.errors import TargetError
from mpcompile.targets.board import BOARDS, load_board, path_of, shipped
from mpcompile.targets.target import Fleet, Target
from mpcompile.targets.toml_file import must_be, read_keys, read_toml

NATIVE = "native"
"""As a target, the machine itself."""


class FleetFile(Struct, forbid_unknown_fields=True):
    """The keys of a fleet's TOML."""

    description: str
    boards: Annotated[tuple[Annotated[str, Meta(min_length=1)], ...], Meta(min_length=1)]


def list_fleets() -> list[str]:
    """Names of the fleets that ship."""
    return [p.stem for p in shipped() if BOARDS in read_toml(p)]


def read_fleet(name_or_path: str | os.PathLike) -> Fleet:
    """A fleet by name or path; a board is a fleet of one.

    The TOML has `description` and `boards`: names or paths, best first, relative to it. Raises TargetError naming file
    and key.
    """
    path = path_of(name_or_path)
    table = read_toml(path)
    if BOARDS not in table:
        return Fleet.of(load_board(name_or_path))

    def refuse(why: str):
        raise TargetError(f"target {path}: {BOARDS}: {why}")

    found = read_keys(path, table, FleetFile, "a fleet has")
    if NATIVE in found.boards:
        refuse(must_be(BOARDS, "names", table[BOARDS]))
    boards: list[Target] = []
    for name in found.boards:
        try:
            boards.append(load_board(path.parent / name if name.endswith(".toml") else name))
        except TargetError as error:
            refuse(str(error))
    for i, board in enumerate(boards):
        for better in boards[:i]:
            if board.name == better.name:
                refuse(f"{board.name} is named twice")
            if board.kind != better.kind:
                refuse(f"{better.name} is a {better.kind}, {board.name} a {board.kind}: one kind of device")
            if board.arch != better.arch:
                if board.kind == "cpu":
                    refuse(f"{better.name} is {better.arch}, {board.name} is {board.arch}: one architecture")
            elif set(better.features) <= set(board.features):
                refuse(
                    f"no CPU would ever run {board.name}: all that have its features have those of "
                    f"{better.name}, which comes first",
                )
    return Fleet(path.stem, found.description, tuple(boards))
