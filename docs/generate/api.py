"""The Python API, from what `mpcompile` offers: mkdocstrings is told which objects to show, and reads their docstrings."""

from __future__ import annotations

from pathlib import Path

import griffe

import mpcompile

PACKAGE = "mpcompile"
ROOT = Path(__file__).resolve().parents[2]


def offered() -> dict[str, str]:
    """Public name → path of the function that it is."""
    found = {name: mpcompile.offered(name) for name in mpcompile.__all__ if name != "__version__"}
    return {name: f"{f.__module__}.{f.__qualname__}" for name, f in found.items()}


def functions() -> str:
    """A section for each function of `mpcompile`."""
    return "\n\n".join(
        f"::: {path}\n    options:\n      heading: mp.{name}\n      toc_label: mp.{name}"
        for name, path in offered().items()
    )


def results() -> str:
    """A section for each class of ours that the functions return, and each error."""
    package = griffe.load(PACKAGE, search_paths=[str(ROOT)], resolve_aliases=True)
    paths: list[str] = []
    for path in offered().values():
        function = package[path.removeprefix(f"{PACKAGE}.")]
        returns = function.returns
        if returns is None:
            raise ValueError(f"{path} does not say what it returns")
        names = returns.iterate(flat=True) if isinstance(returns, griffe.Expr) else ()
        for name in names:
            where = getattr(name, "canonical_path", "")
            if where.startswith(f"{PACKAGE}."):
                target = package[where.removeprefix(f"{PACKAGE}.")]
                target = target.final_target if target.is_alias else target
                if target.is_class and target.path not in paths:
                    paths.append(target.path)
    errors = [c.path for c in package["errors"].classes.values()]
    shown = [f"::: {p}\n    options:\n      heading_level: 3" for p in paths]
    return "\n\n".join(
        [
            "## What they return",
            *shown,
            "## Errors",
            *(f"::: {p}\n    options:\n      heading_level: 3" for p in errors),
        ]
    )
