"""README, CONTRIBUTING and the pages of docs/, as tests read them."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
README, CONTRIBUTING = ROOT / "README.md", ROOT / "CONTRIBUTING.md"
DOCS = ROOT / "docs"
WALK = ROOT / "examples" / "raspberry_pi" / "README.md"
"""Its lines that begin with `pi$` are typed on the board, where mpcompile is in an environment of its own."""
PAGES = {str(p.relative_to(ROOT)): p for p in [README, CONTRIBUTING, WALK, *sorted(DOCS.rglob("*.md"))]}
"""Path in the repository → page."""
TUTORIALS = [name for name in PAGES if name.startswith("docs/tutorials/")]


def blocks(text: str, language: str) -> list[str]:
    """The code of a language, block by block."""
    return re.findall(rf"^```{language}\b[^\n]*\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


def part(text: str, name: str) -> str:
    """What stands between the marks of a table that is written by a command."""
    return re.search(rf"<!-- {name}\b[^>]*-->\n(.*?)<!-- /{name} -->", text, re.DOTALL)[1]


def commands(text: str) -> list[str]:
    """The lines that call mpcompile, as they are typed."""
    lines = [
        line.strip().removeprefix("pi$ ").removeprefix("mp/bin/")
        for block in re.findall(r"^ *```sh\n(.*?)```", text, re.DOTALL | re.MULTILINE)
        for line in block.splitlines()
    ]
    return [line for line in lines if line.startswith("mpcompile ")]
