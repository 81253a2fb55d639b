"""How both TVMs' export_library links for a board, another architecture's too."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from mpcompile.compiler.linker import link_shared
from mpcompile.targets import Target, cpu


def linker_for(board: Target) -> Callable:
    """For export_library(fcompile=…). It also says for what the library is: TVM learns that from its own kernels, of which
    a network that is one region has none, and takes this machine then.

    It raises TargetError where nothing links for the board, ResourceError where a disk or memory is full.
    """

    def link(output: str, objects: Sequence[str], options: Sequence[str] | None = None, **_: object) -> None:
        link_shared(output, [*objects, *(options or ())], board.mtriple)

    link.output_format = "so"  # pyright: ignore[reportFunctionMemberAccess]
    link.get_target_triple = lambda: board.mtriple or f"{cpu.arch()}-linux-gnu"  # pyright: ignore[reportFunctionMemberAccess]
    return link
