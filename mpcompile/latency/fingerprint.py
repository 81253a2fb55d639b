"""One hash of the code that a measurement depends on: what compiles a layer, and what measures it.

It is of all sources that some modules reach by their import statements, those inside functions included, within
mpcompile; so a file that a kernel begins to import counts from then on. What is only for type checkers is not followed.
Nothing is imported to find out, so a room may ask about modules that it must not know.

Where it is kept, and what happens when it changes:

* the latency table's cells and a search's measurements name `measured_code()` in what they depend on (`kernels` of a
  workbench's identity): all of them are measured anew;
* trials of tuning name it too: they are made anew, and a record of an older one is confirmed by new trials. Compiling
  takes records of any: bytes of results never depend on one;
* a search's folder names the fingerprint of the search's own code, and does again what older code did.

Not in it are data: boards and the records that ship. The identities name those by what they say (`target_sha`,
`records`).
"""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

PACKAGE = "mpcompile"
HERE = Path(__file__).resolve().parents[2]
"""The folder that holds the package that runs."""

MEASURED = (
    "mpcompile.compiler.pipeline",  # a network
    "mpcompile.compiler.layer_library",  # a layer by itself
    "mpcompile.records.choose",  # its tile
    "mpcompile.runtime.device",  # its time
)


@cache
def measured_code(root: Path = HERE) -> str:
    """The fingerprint of what compiles and measures: 16 hexadecimal digits."""
    return fingerprint(*MEASURED, root=root)


def fingerprint(*modules: str, root: Path = HERE) -> str:
    """Of the sources that `modules` reach in the package under `root`: 16 hexadecimal digits.

    Raises ModuleNotFoundError where one of `modules` is not there.
    """
    digest = hashlib.sha256()
    for module, path in sorted(sources(*modules, root=root).items()):
        digest.update(f"{module} {hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode())
    return digest.hexdigest()[:16]


def sources(*modules: str, root: Path = HERE) -> dict[str, Path]:
    """Module → its file: `modules`, what they import, what that imports, and the packages that those are in."""
    found: dict[str, Path] = {}
    left = []
    for module in modules:
        if _file(module, root) is None:
            raise ModuleNotFoundError(f"there is no module {module} in {root}", name=module)
        left.append(module)
    while left:
        module = left.pop()
        path = _file(module, root)
        if path is None or module in found:
            continue
        found[module] = path
        package = module if path.name == "__init__.py" else module.rpartition(".")[0]
        left += _imported(path.read_bytes(), package)
        if "." in module:
            left.append(module.rpartition(".")[0])
    return found


def _file(module: str, root: Path) -> Path | None:
    """None for what is no module of the package: a name in one, or another package's."""
    if module.split(".")[0] != PACKAGE:
        return None
    path = root.joinpath(*module.split("."))
    for file in (path / "__init__.py", path.with_suffix(".py")):
        if file.is_file():
            return file
    return None


@cache
def _imported(text: bytes, package: str) -> tuple[str, ...]:
    """Absolute names of all that a file in `package` imports; for `from a import b` both a and a.b, which may be a
    module."""
    return tuple(_imports(ast.parse(text), package.split(".")))


def _imports(tree: ast.AST, package: list[str]) -> Iterator[str]:
    skipped: set[ast.AST] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and _type_checking(node.test):
            skipped.update(inner for statement in node.body for inner in ast.walk(statement))
        if node in skipped:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            origin = ".".join([*base, *([node.module] if node.module else [])])
            yield origin
            yield from (f"{origin}.{alias.name}" for alias in node.names)
        elif (
            isinstance(node, ast.Call)
            and _last_name(node.func) == "import_module"
            and node.args
            and isinstance(node.args[0], ast.Constant)
        ):
            yield str(node.args[0].value)


def _type_checking(test: ast.expr) -> bool:
    return _last_name(test) == "TYPE_CHECKING"


def _last_name(node: ast.expr) -> str:
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""
