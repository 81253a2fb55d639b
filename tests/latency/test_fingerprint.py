"""The fingerprint of what compiles and measures: which sources count, and that each of them does."""

import shutil
from pathlib import Path

import pytest

from mpcompile.latency.fingerprint import HERE, MEASURED, fingerprint, sources
from mpcompile.records.store import Record, Records

SEARCH = "mpcompile.search.run"


@pytest.fixture(scope="module")
def copy(tmp_path_factory) -> Path:
    """The package's sources in a folder of its own, links followed."""
    root = tmp_path_factory.mktemp("copy")
    shutil.copytree(HERE / "mpcompile", root / "mpcompile", ignore=shutil.ignore_patterns("__pycache__"))
    return root


def changes(path: Path, *modules: str, root: Path) -> bool:
    """Whether another line in `path` changes the fingerprint; the file is as before afterwards."""
    before, text = fingerprint(*modules, root=root), path.read_bytes()
    path.write_bytes(text + b"# another line\n")
    try:
        return fingerprint(*modules, root=root) != before
    finally:
        path.write_bytes(text)


def test_every_file_of_the_set_counts(copy):
    """Each is edited in turn."""
    files = sources(*MEASURED, root=copy)
    assert len(files) > 80
    assert not [module for module, path in files.items() if not changes(path, *MEASURED, root=copy)]


def test_what_decides_codes_formats_and_times_is_in_the_set():
    rooms = {str(path.relative_to(HERE / "mpcompile")) for path in sources(*MEASURED).values()}
    wanted = {f"ir/{name}.py" for name in ("formats", "planes", "grid", "layer", "graph", "plan")}
    wanted |= {"reference/thresholds.py", "reference/epilogue.py", "latency/measure.py", "runtime/executor.py"}
    for folder in ("kernels", "schedules", "compiler/passes"):
        found = [p for p in (HERE / "mpcompile" / folder).rglob("*.py") if p.name != "__init__.py"]
        assert found
        wanted |= {str(p.relative_to(HERE / "mpcompile")) for p in found}
    assert not wanted - rooms
    assert not [name for name in rooms if name.split("/")[0] in ("cli", "report", "search", "frontend", "api")]


@pytest.mark.parametrize("outside", ["report/page.py", "cli/command_line.py", "frontend/qonnx.py", "search/run.py"])
def test_what_is_not_reached_does_not_count(copy, outside):
    assert not changes(copy / "mpcompile" / outside, *MEASURED, root=copy)


def test_every_file_of_the_search_counts_for_its_folder(copy):
    for path in (copy / "mpcompile" / "search").glob("*.py"):
        assert changes(path, SEARCH, root=copy), path.name
    assert changes(copy / "mpcompile/latency/table.py", SEARCH, root=copy)
    assert not changes(copy / "mpcompile/kernels/families/dot.py", SEARCH, root=copy)


@pytest.mark.parametrize(
    "statement",
    [
        "import mpcompile.a.other",
        "from mpcompile.a import other",
        "from mpcompile.a.other import anything",
        "from . import other",
        "from .other import anything",
        "def late():\n    from mpcompile.a.other import anything",
        "import_module('mpcompile.a.other')",
    ],
)
def test_every_way_to_import_is_followed(tmp_path, statement):
    write(tmp_path, statement)
    assert set(sources("mpcompile.a.one", root=tmp_path)) == {
        "mpcompile",
        "mpcompile.a",
        "mpcompile.a.one",
        "mpcompile.a.other",
    }


def test_what_only_type_checkers_import_is_not(tmp_path):
    write(tmp_path, "if TYPE_CHECKING:\n    import mpcompile.a.other\nelse:\n    import json")
    assert "mpcompile.a.other" not in sources("mpcompile.a.one", root=tmp_path)


def test_a_module_that_is_not_there_is_refused(tmp_path):
    write(tmp_path, "")
    with pytest.raises(ModuleNotFoundError, match=r"there is no module mpcompile\.a\.gone"):
        fingerprint("mpcompile.a.one", "mpcompile.a.gone", root=tmp_path)


def write(root: Path, one: str) -> None:
    """A package mpcompile.a with two modules; `one` is the first's text."""
    (root / "mpcompile" / "a").mkdir(parents=True)
    texts = {"__init__": "", "a/__init__": "", "a/one": one, "a/other": "import mpcompile.a.one"}
    for name, text in texts.items():
        (root / "mpcompile" / f"{name}.py").write_text(text + "\n")


def test_records_count_by_their_tiles():
    """What tiles they give decides times; when and on what they were made does not."""

    def of(row: int, cpu: str = "a CPU", kernels: str = "abc", layer: int = 1) -> str:
        return Records(
            [Record({"out": [layer]}, {"row": row}, 1e-4, 1.2e-4, {"row": 1}, cpu, 1, 64, "0.27", kernels)]
        ).fingerprint

    assert of(2) == of(2, "another", "another")
    assert len({of(1), of(2), of(2, layer=2), Records().fingerprint}) == 4
