"""Fleets: a TOML that names boards, for bundles that run on all of them. Errors name file and key."""

from __future__ import annotations

import os

from mpcompile.errors import TargetError
from mpcompile.targets.board import BOARDS, load_board, path_of, read_toml, shipped
from mpcompile.targets.target import Fleet


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

    def refuse(key: str, why: str):
        raise TargetError(f"target {path}: {key}: {why}")

    for key in table:
        if key not in ("description", BOARDS):
            refuse(key, f"unknown key; a fleet has description, {BOARDS}")
    if not isinstance(table.get("description"), str):
        refuse("description", "must be a string" if "description" in table else "is missing")
    names = table[BOARDS]
    if not isinstance(names, list) or not names or not all(isinstance(n, str) and n != "native" for n in names):
        refuse(BOARDS, f"must be a list of names or .toml paths of boards, best first, not {names!r}")
    boards = tuple(load_board(path.parent / n if n.endswith(".toml") else n) for n in names)
    for i, board in enumerate(boards):
        for better in boards[:i]:
            if board.name == better.name:
                refuse(BOARDS, f"{board.name} is named twice")
            if board.arch != better.arch:
                refuse(BOARDS, f"{better.name} is {better.arch}, {board.name} is {board.arch}: one architecture")
            if set(better.features) <= set(board.features):
                refuse(
                    BOARDS,
                    f"no CPU would ever run {board.name}: all that have its features have those of "
                    f"{better.name}, which comes first",
                )
    return Fleet(path.stem, table["description"], boards)
