"""The map of the modules: every room, and what each of its modules is for, from their docstrings."""

from __future__ import annotations

import ast
import os
import re
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[2] / "mpcompile"


def summary(path: Path) -> str:
    """The first paragraph of a module's docstring. Raises ValueError where it has none."""
    text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
    if not text:
        raise ValueError(f"{path} has no docstring")
    text = " ".join(text.split("\n\n")[0].split())
    text = re.sub(r"(?<![`\w])([\w/]+\.py)\b(?!`)", r"`\1`", text)
    return re.sub(r"([|\[])", r"\\\1", text).replace("<", "&lt;")


def modules() -> str:
    """A section for each room: what it is, and a table of its modules with links to their source."""
    lines = ["## Beside the rooms", "", *_table(PACKAGE, sorted(PACKAGE.glob("*.py")))]
    for room in sorted(p.parent for p in PACKAGE.glob("*/__init__.py")):
        files = sorted(
            Path(folder) / name
            for folder, _, names in os.walk(room, followlinks=True)
            for name in names
            if name.endswith(".py")
        )
        lines += ["", f"## {room.name}", "", summary(room / "__init__.py"), ""]
        lines += _table(room, [f for f in files if f.name != "__init__.py" or f.parent != room])
    return "\n".join(lines)


def _table(room: Path, files: list[Path]) -> list[str]:
    def place(path: Path) -> str:
        parts = path.relative_to(PACKAGE).parts  # the two linked rooms are named by where their files are
        return "/".join(parts if parts[0] in ("schedules", "targets") else ("mpcompile", *parts))

    rows = [f"| [`{p.relative_to(room)}`](repo:{place(p)}) | {summary(p)} |" for p in files]
    return ["| module | is for |", "|---|---|", *rows]
