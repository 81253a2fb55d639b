"""The kernel families: the registry of their records, in a fixed order. No TVM here until an expression is made.

A new family is a file like these that holds its record, a line in `_SHIPPED`, and its loops in mpcompile.schedules
(CONTRIBUTING, "A kernel family").
"""

from __future__ import annotations

from mpcompile.errors import UsageError
from mpcompile.kernels.families.depthwise import DEPTHWISE
from mpcompile.kernels.families.dot import DOT
from mpcompile.kernels.families.family import Family
from mpcompile.kernels.families.lookup import LOOKUP
from mpcompile.kernels.families.popcount import POPCOUNT
from mpcompile.kernels.families.winograd import WINOGRAD

__all__ = ["Family", "families", "family", "register", "unregister"]

_SHIPPED = (POPCOUNT, DOT, LOOKUP, DEPTHWISE, WINOGRAD)
_BY_NAME = {f.name: f for f in _SHIPPED}


def families() -> tuple[Family, ...]:
    """All families, those that ship first."""
    return tuple(_BY_NAME.values())


def family(name: str) -> Family:
    """Raises UsageError naming those that there are."""
    if name not in _BY_NAME:
        raise UsageError(f"{name} is no kernel family: there are {', '.join(_BY_NAME)}")
    return _BY_NAME[name]


def register(new: Family) -> None:
    """One more, after all others. Raises UsageError where the name is taken."""
    if new.name in _BY_NAME:
        raise UsageError(f"there is a kernel family {new.name} already")
    _BY_NAME[new.name] = new


def unregister(name: str) -> None:
    """Takes a family out again that was registered. Raises UsageError where it is none, or one of those that ship."""
    if any(name == f.name for f in _SHIPPED):
        raise UsageError(f"the kernel family {name} ships: it cannot be taken out")
    del _BY_NAME[family(name).name]
