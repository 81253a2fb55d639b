"""What each board is expected to be fastest at, as tables: of targets/*.toml alone; nothing is measured, no TVM
needed."""

from __future__ import annotations

from collections.abc import Iterable

from mpcompile.kernels.select import expected_family, expected_gain
from mpcompile.targets import load_target

ARM = ("rpi3b", "rpi4b", "rpi5")
"""The 64-bit boards."""
BITS = (1, 2, 3, 4, 8)


def expected(boards: Iterable[str] = ARM) -> str:
    """For each board and bit pair the family that is expected fastest, and its gain over int8."""
    lines = [
        "Expected fastest, and how many times faster than int8 on long inner products (`mpcompile targets BOARD`):"
    ]
    for board in boards:
        target = load_target(board)
        lines += ["", f"| {board} | " + " | ".join(f"A{a}" for a in BITS) + " |", "|---" * (len(BITS) + 1) + "|"]
        for w in BITS:
            lines.append(
                f"| W{w} | "
                + " | ".join(f"{expected_family(target, w, a)} {expected_gain(target, w, a):.1f}" for a in BITS)
                + " |"
            )
    return "\n".join(lines) + "\n"
