"""DESIGN's walls, read from the imports: who may know TVM, torch and the other rooms."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
ROOMS = {
    "mpcompile": ROOT / "mpcompile",
    "mpcompile.schedules": ROOT / "schedules",
    "mpcompile.targets": ROOT / "targets",
}

BASE = {"errors", "files", "cpu", "planes", "grid", "rounding"}
"""Small modules without a room, which anyone may use; __init__ is the version."""
TVM_ROOMS = {"compiler", "kernels", "schedules", "tuning", "runtime", "remote"}
TORCH_ROOMS = {"search"}
TORCH_FILES = {"mpcompile/frontend/pytorch.py"}
TVM_FILES = {"mpcompile/tvm_names.py", "mpcompile/doctor.py"}
"""Beside the rooms: the module of renamed names, which they share, and doctor, which tries whether TVM loads."""

MAY_KNOW = {
    # room: the rooms and modules of mpcompile that it may import, beside BASE and itself
    "planes": set(),
    "grid": set(),
    "errors": set(),
    "files": set(),
    "interrupts": set(),
    "cpu": set(),
    "rounding": {"graph"},
    "graph": set(),
    "layer": {"graph"},
    "formats": set(),
    "plan": {"formats"},
    "targets": set(),
    "reference": {"graph", "layer"},
    "frontend": {"graph"},
    "kernels": {"layer", "formats", "targets", "tvm_names", "reference", "schedules"},
    "schedules": {"kernels", "tvm_names", "targets"},
    "compiler": {
        "graph",
        "layer",
        "formats",
        "plan",
        "kernels",
        "schedules",
        "targets",
        "tvm_names",
        "frontend",
        "reference",
        "runtime",
        "compare",
        "latency",
        "records",
    },
    "records": {"formats", "kernels", "schedules"},
    "tuning": {
        "graph",
        "layer",
        "formats",
        "kernels",
        "schedules",
        "targets",
        "tvm_names",
        "compiler",
        "frontend",
        "latency",
        "plan",
        "records",
        "remote",
        "runtime",
    },
    "latency": {"graph", "layer"},
    "search": {"latency"},
    "runtime": {"plan", "latency"},
    "remote": {"plan", "latency", "runtime", "targets"},
    "compare": {"graph", "layer", "formats", "reference"},
    "report": set(),
}
ANYTHING = {
    "cli",
    "workbench",
    "measured_search",
    "search_checks",
    "commands",
    "console",
    "doctor",
    "arrays",
    "__init__",
    "__main__",
}


def files():
    for room, folder in ROOMS.items():
        for path in sorted(folder.rglob("*.py")):
            if room != "mpcompile" or not path.is_relative_to(ROOT / "mpcompile" / "schedules"):
                yield path


def module_of(path: Path) -> str:
    relative = path.relative_to(ROOT).with_suffix("")
    parts = relative.parts if relative.parts[0] == "mpcompile" else ("mpcompile", *relative.parts)
    return ".".join(parts).removesuffix(".__init__")


def room_of(module: str) -> str:
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else "__init__"


def imports(path: Path) -> list[tuple[int, str, bool]]:
    """(line, absolute module, whether it is only for type checkers) of every import in a file, nested ones included."""
    tree = ast.parse(path.read_text())
    typing_only = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)
        for inner in ast.walk(node)
    }
    found = []
    for node in ast.walk(tree):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            package = module_of(path).split(".")
            if path.name != "__init__.py":
                package = package[:-1]
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            names = [f"{module}.{a.name}" for a in node.names] if module == "mpcompile" else [module]
        elif (
            isinstance(node, ast.Call)
            and getattr(node.func, "attr", getattr(node.func, "id", "")) == "import_module"
            and node.args
            and isinstance(node.args[0], ast.Constant)
        ):
            names = [node.args[0].value]
        found += [(node.lineno, name, id(node) in typing_only) for name in names]
    return found


ALL = [(path, line, name, typing_only) for path in files() for line, name, typing_only in imports(path)]


def test_there_is_something_to_read():
    assert len(ALL) > 200 and {room_of(module_of(p)) for p, *_ in ALL} >= {
        "compiler",
        "kernels",
        "schedules",
        "targets",
        "runtime",
    }


def broken(rule) -> list[str]:
    return sorted(
        {
            f"{path.relative_to(ROOT)}:{line} imports {name}"
            for path, line, name, typing_only in ALL
            if rule(path, name, typing_only)
        }
    )


def test_tvm_stays_in_its_rooms():
    def rule(path, name, _):
        return (
            name.split(".")[0] in ("tvm", "tvm_ffi")
            and room_of(module_of(path)) not in TVM_ROOMS
            and str(path.relative_to(ROOT)) not in TVM_FILES
        )

    assert not broken(rule)


def test_torch_stays_in_its_rooms():
    def rule(path, name, _):
        return (
            name.split(".")[0] in ("torch", "brevitas")
            and room_of(module_of(path)) not in TORCH_ROOMS
            and str(path.relative_to(ROOT)) not in TORCH_FILES
        )

    assert not broken(rule)


def test_nobody_imports_the_top_level_folders():
    """`import schedules` from the checkout would be a second module beside mpcompile.schedules."""
    everywhere = [p for folder in ("tests", "examples", "benchmarks") for p in (ROOT / folder).rglob("*.py")]
    found = [
        f"{p.relative_to(ROOT)}:{line} imports {name}"
        for p in everywhere
        for line, name, _ in imports(p)
        if name.split(".")[0] in ("schedules", "targets")
    ]
    assert not found + broken(lambda path, name, _: name.split(".")[0] in ("schedules", "targets"))


@pytest.mark.parametrize("room", sorted(MAY_KNOW))
def test_a_room_knows_only_what_it_may(room):
    allowed = MAY_KNOW[room] | BASE | {room, "__init__", "__version__"}
    assert not broken(
        lambda path, name, typing_only: (
            room_of(module_of(path)) == room
            and not typing_only
            and name.split(".")[0] == "mpcompile"
            and room_of(name) not in allowed
        )
    )


def test_every_room_has_its_walls():
    """A new folder or module must be entered above, so that somebody decides what it may know."""
    rooms = {room_of(module_of(path)) for path in files()}
    assert rooms <= set(MAY_KNOW) | ANYTHING | {"tvm_names"}, rooms - set(MAY_KNOW) - ANYTHING
