"""SIGKILL at named places: every file is the old one or the new one, whole, the same command succeeds afterwards, and what
was left behind is gone then."""

import json

import pytest

from mpcompile.runtime.archive import read_archive
from tests.faults.conftest import TARGET, contents, profile_command

PLACES = {
    "before the linker": {"at": "mpcompile.compiler.linker:run_tool"},
    "with the linker's library": {"at": "mpcompile.compiler.linker:run_tool", "when": "after"},
    "in the middle of the bundle": {"at": "zipfile:ZipFile.writestr", "nth": 2},
    "with the bundle on the disk": {"at": "mpcompile.files:_to_disk", "when": "after"},
    "before it gets its name": {"at": "os:replace"},
    "when it has its name": {"at": "os:replace", "when": "after"},
}


@pytest.fixture(scope="module")
def bundle(workshop, model, tmp_path_factory) -> bytes:
    folder = tmp_path_factory.mktemp("whole")
    assert workshop.run(compile_command(model), folder).code == 0
    return (folder / "m.mpc").read_bytes()


def compile_command(model) -> list:
    return ["compile", model, "--target", TARGET, "-o", "m.mpc"]


@pytest.mark.parametrize("place", PLACES)
def test_compile(place, workshop, model, bundle, tmp_path):
    old = b"before"
    (tmp_path / "m.mpc").write_bytes(old)
    ended = workshop.run(compile_command(model), tmp_path, **PLACES[place])
    assert ended.reached and ended.code == -9
    left = contents(tmp_path)
    assert left.pop("m.mpc") == (bundle if place == "when it has its name" else old)
    assert left or place == "when it has its name", "nothing was left that could be swept"
    assert workshop.run(compile_command(model), tmp_path).code == 0
    assert contents(tmp_path) == {"m.mpc": bundle} and not list((tmp_path / "tmp").iterdir())


@pytest.mark.parametrize("nth, when", [(1, "before"), (5, "before"), (2, "after")])
def test_c_export(nth, when, workshop, model, tmp_path):
    """Its four files are all old until all are on the disk; the last two places are between their renames."""
    command = ["compile", model, "--target", TARGET, "--format", "c", "-o", "c"]
    place = {"at": "os:replace" if nth < 5 else "mpcompile.files:_to_disk", "nth": nth, "when": when}
    ended = workshop.run(command, tmp_path, **place)
    assert ended.reached and ended.code == -9
    assert workshop.run(command, tmp_path).code == 0
    assert sorted(contents(tmp_path)) == ["c/CMakeLists.txt", "c/example.c", "c/libm.a", "c/m.h"]


@pytest.mark.parametrize("when", ["before", "after"])
def test_profile(when, workshop, model, tmp_path):
    """As it writes what it measured, and as it writes the table."""
    command = profile_command(model)
    cells = tmp_path / "lut.json.cells"
    ended = workshop.run(command, tmp_path, at="mpcompile.latency.cache:Lines.put", when=when)
    assert ended.reached and ended.code == -9 and not (tmp_path / "lut.json").exists()
    kept = cells.read_bytes() if cells.exists() else b""
    assert bool(kept) == (when == "after")
    ended = workshop.run(command, tmp_path, at="os:replace", when=when)
    assert ended.reached and ended.code == -9
    assert workshop.run(command, tmp_path).code == 0
    lines = cells.read_bytes()
    assert lines.startswith(kept) and json.loads((tmp_path / "lut.json").read_text())
    keys = [json.loads(line)["key"] for line in lines.splitlines()]
    assert len(set(keys)) == len(keys)
    assert sorted(contents(tmp_path)) == ["lut.json", "lut.json.cells"] and not list((tmp_path / "tmp").iterdir())


def test_run(workshop, bundle, tmp_path):
    import numpy as np

    (tmp_path / "m.mpc").write_bytes(bundle)
    read_archive(tmp_path / "m.mpc")
    np.savez(tmp_path / "x.npz", x=np.ones((32, 8, 8), np.float32))
    command = ["run", "m.mpc", "--input", "x.npz", "--output", "y.npz"]

    def killed(at: str) -> tuple[int, int]:
        """What is left of temporary folders, and of the output."""
        ended = workshop.run(command, tmp_path, at=at)
        assert ended.reached and ended.code == -9 and not (tmp_path / "y.npz").exists()
        return len(list((tmp_path / "tmp").iterdir())), len(list(tmp_path.glob(".y.npz.*")))

    assert killed("pathlib:Path.write_bytes") == (1, 0)
    assert killed("pathlib:Path.write_bytes") == (1, 0), "the next start sweeps what the one before left"
    assert killed("os:replace") == (0, 1)
    assert killed("os:replace") == (0, 1)
    assert workshop.run(command, tmp_path).code == 0
    assert sorted(contents(tmp_path)) == ["m.mpc", "x.npz", "y.npz"] and not list((tmp_path / "tmp").iterdir())
