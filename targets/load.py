"""A target by name or path: this machine, a board, or a fleet of them."""

from __future__ import annotations

import os

from mpcompile.targets.board import list_boards, load_board
from mpcompile.targets.fleet import NATIVE, read_fleet
from mpcompile.targets.native import native_target
from mpcompile.targets.target import Fleet, Target


def list_targets() -> list[str]:
    """Names of the boards that ship, "native" first."""
    return [NATIVE, *list_boards()]


def load_target(name_or_path: str | os.PathLike) -> Target:
    """ "native", a shipped board's name, or the path of a TOML. Raises TargetError naming the file and the key."""
    return native_target() if name_or_path == NATIVE else load_board(name_or_path)


def load_fleet(name_or_path: str | os.PathLike) -> Fleet:
    """A fleet by name or path; what load_target takes is a fleet of one board. Raises TargetError naming file and key."""
    return Fleet.of(native_target()) if name_or_path == NATIVE else read_fleet(name_or_path)
