"""Which cubins run on which devices."""

from __future__ import annotations

import re
from collections.abc import Iterable

TEGRA = {(5, 3), (6, 2), (7, 2), (8, 7), (10, 1), (11, 0)}
"""Compute capabilities of Jetsons and DRIVE boards, for which cubins of other devices are not made, nor theirs for others
(CUDA Compiler Driver NVCC, "Binary compatibility")."""


def capability(arch: str) -> tuple[int, int, str] | None:
    """ "sm_87" → (8, 7, ""), "sm_90a" → (9, 0, "a"), "sm_100" → (10, 0, ""); None where that is no architecture."""
    found = re.fullmatch(r"sm_(\d+)(\d)([af]?)", arch)
    return (int(found[1]), int(found[2]), found[3]) if found else None


def runs_on(arch: str, device: str) -> bool:
    """Whether a cubin for `arch` runs on a device of that architecture: one of the same major number, and of no lower
    minor one. Code for "sm_90a" runs on that alone."""
    code, here = capability(arch), capability(device)
    if code is None or here is None:
        return False
    if code[:2] == here[:2]:
        return True
    return not code[2] and code[0] == here[0] and code[1] < here[1] and not {code[:2], here[:2]} & TEGRA


def best_for(archs: Iterable[str], device: str) -> str | None:
    """Of those that run on the device, the one nearest to it."""
    return max((a for a in archs if runs_on(a, device)), key=lambda a: capability(a) or (0, 0, ""), default=None)
