"""A kernel family's name is spelled in its own file and where its loops are scheduled; everybody else asks."""

import ast
from pathlib import Path

from mpcompile.kernels.families import families

ROOT = Path(__file__).resolve().parents[2]
ROOMS = (ROOT / "mpcompile" / "kernels" / "families", ROOT / "mpcompile" / "schedules", ROOT / "mpcompile" / "targets")
"""Where names may be spelled; the boards' files, which the last one links, have figures of instructions."""
NAMES = {*(f.name for f in families()), "winograd"}


def spelled(paths) -> list[str]:
    found = []
    for path in paths:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Constant) and node.value in NAMES:
                found.append(f"{path.relative_to(ROOT)}:{node.lineno} says {node.value!r}")
    return found


def test_only_its_own_rooms_spell_a_family_s_name():
    files = [*(ROOT / "mpcompile").rglob("*.py"), *(ROOT / "targets").rglob("*.py")]
    outside = [path for path in files if not any(path.is_relative_to(room) for room in ROOMS)]
    assert len(outside) > 150 and ROOT / "targets" / "target.py" in outside
    assert not spelled(outside)


def test_each_name_is_spelled_where_its_record_is():
    found = spelled((ROOT / "mpcompile" / "kernels" / "families").glob("*.py"))
    for family in families():
        assert any(f"families/{family.name}.py" in line and repr(family.name) in line for line in found)
