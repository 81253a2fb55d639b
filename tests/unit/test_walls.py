"""DESIGN's walls, read from the imports: who may know TVM, torch and the other rooms."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "mpcompile"
LINKED = {"schedules", "targets"}
"""Rooms that stand at the top, and in the package by a link."""

BASE = {"errors", "files", "locks", "temporary"}
"""Small modules without a room, which anyone may use; __init__ is the version."""
OFFERED = {"relay", "relax"}
"""Names of the room tvm_frontend that users import: mpcompile.relay, mpcompile.relax."""
TVM_ROOMS = {"tvm_frontend", "compiler", "kernels", "schedules", "tuning", "runtime", "remote"}
TORCH_ROOMS = {"search"}
TVM_FILES = {"mpcompile/cli/doctor.py"}
"""Beside the rooms: doctor, which tries whether TVM loads."""

MAY_KNOW = {
    # room: the rooms that it may import, beside BASE and itself
    "ir": set(),
    "targets": set(),
    "report": set(),
    "reference": {"ir"},
    "frontend": {"ir"},
    "witness": {"ir", "reference", "frontend"},
    "latency": {"ir"},
    "allocate": {"ir", "latency"},
    "search": {"ir", "latency", "allocate"},
    "ptq": {"ir", "frontend", "latency", "allocate"},
    "kernels": {"ir", "targets", "reference"},
    "schedules": {"ir", "kernels", "targets"},
    "records": {"ir", "kernels"},
    "compiler": {"ir", "kernels", "reference", "runtime", "schedules", "targets"},
    "runtime": {"ir", "latency", "targets"},
    "remote": {"ir", "latency", "runtime", "targets"},
    "tuning": {"ir", "kernels", "schedules", "targets", "compiler", "latency", "records", "remote", "runtime"},
}
ANYTHING = {"api", "cli", "tvm_frontend", "__init__", "__main__", *OFFERED}
"""What may know every room. tvm_frontend is a second front door beside api and cli: it hands regions to api.export_c."""


def files():
    for path in sorted([*PACKAGE.rglob("*.py"), *(p for room in LINKED for p in (ROOT / room).rglob("*.py"))]):
        if not path.is_relative_to(PACKAGE / "schedules") and not path.is_relative_to(PACKAGE / "targets"):
            yield path


def module_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts if parts[0] == "mpcompile" else ("mpcompile", *parts)).removesuffix(".__init__")


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
        return name.split(".")[0] in ("torch", "brevitas") and room_of(module_of(path)) not in TORCH_ROOMS

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
    assert rooms == set(MAY_KNOW) | ANYTHING | BASE


def test_few_modules_stand_outside_the_rooms():
    assert {p.stem for p in PACKAGE.glob("*.py")} == {"__init__", "__main__", *BASE, *OFFERED}


def test_rooms_import_downward():
    """Each room stands below all that know it: the order of MAY_KNOW."""
    order = list(MAY_KNOW)
    assert not [(room, known) for room in order for known in MAY_KNOW[room] if order.index(known) >= order.index(room)]


def test_no_modules_import_each_other():
    """No circle, imports inside functions counted; what is only for type checkers is not, nor what a package's own
    __init__ offers of it."""
    modules = {module_of(path) for path in files()}
    packages = {module_of(path) for path in files() if path.name == "__init__.py"}
    known: dict[str, set[str]] = {m: set() for m in modules}
    for path, _, name, typing_only in ALL:
        here, there = module_of(path), name if name in modules else name.rpartition(".")[0]
        if not typing_only and there in modules and here not in packages and here != there:
            known[here].add(there)
    left = dict(known)
    while free := [m for m, those in left.items() if not those & left.keys()]:
        for m in free:
            del left[m]
    assert not left, f"modules that import each other, or something that does: {sorted(left)}"
