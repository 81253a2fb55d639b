"""Whether two times were taken at one speed of a device: the measurer's reference kernel, which runs beside whatever is
measured, tells."""

from __future__ import annotations

SLOWER = 1.5
"""Devices of one kind, and a device and itself, run at one speed; where the reference kernel takes so many times its
best or more, the clock was lowered, something else was running, or it is another device: its numbers are kept out.
Chosen, not measured: far above what the best of a reference's samples moves by on a quiet device (a few per cent), far
below a device that is of no use."""
SLOWER_HERE = 3.0
"""The same where a user's machine measures for itself, with all that runs on it besides."""


def same_speed(reference: float, best: float, slower: float = SLOWER) -> bool:
    """Whether numbers taken beside a reference of so many seconds stand beside those taken beside the best one."""
    return reference < slower * best
