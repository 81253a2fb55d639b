"""A disk that fills up at any write: exit 2 and one line, nothing half written, and what was there stays as it was."""

import json

import numpy as np
import pytest

from mpcompile.runtime.archive import read_archive
from tests.faults.conftest import TARGET, contents, profile_command

ANY = ("m.mpc", "y.npz", "found.json", "lut.json", "c/libm.a", "c/m.h", "c/example.c", "c/CMakeLists.txt")
GROWS = "lut.json.cells"


def whole(path) -> None:
    """Reads it to its end."""
    if path.suffix == ".mpc":
        read_archive(path)
    elif path.suffix == ".npz":
        with np.load(path) as arrays:
            assert [arrays[name].dtype for name in arrays.files]
    elif path.suffix == ".json":
        json.loads(path.read_text())


def fails_at(disk, arguments, write) -> str:
    """What the command says where the disk is full from this write on. It leaves each file as it was, or, where it had
    come so far, whole and new."""
    before = contents(disk.disk)
    ended, count = disk.run(arguments, write)
    assert count >= write and ended.code == 2, (write, count, ended)
    after = contents(disk.disk)
    assert not [name for name in after if name not in before and name not in (*ANY, GROWS)]
    for name, data in before.items():
        if after[name] != data and name != GROWS:
            assert name in ANY
            whole(disk.disk / name)
    return ended.line


def compile_command(model) -> list:
    return ["compile", model, "--target", TARGET, "-o", "m.mpc", "--json", "found.json"]


def test_run_at_every_write(small_disk):
    command = ["run", "m.mpc", "--input", "x.npz", "--output", "y.npz", "--json", "found.json"]
    ended, count = small_disk.run(command)
    assert ended.code == 0 and count > 8
    said = [fails_at(small_disk, command, n) for n in range(1, count + 1)]
    assert all(line.endswith("No space left on device") or "TMPDIR" in line for line in said)
    for words in (
        "y.npz: No space",
        "found.json: No space",
        "cannot write temporary files into",
        "make a temporary fold",
    ):
        assert any(words in line for line in said)
    assert small_disk.run(command)[0].code == 0


def test_compile(small_disk, model):
    """At each of its own first writes, in the middle of the linker's, at its own last ones."""
    ended, count = small_disk.run(compile_command(model))
    assert ended.code == 0
    said = [fails_at(small_disk, compile_command(model), n) for n in (3, 4, count // 2, count - 5, count)]
    for words in (
        "m.mpc: No space",
        "found.json: No space",
        "did not link",
        "temporary fold",
        "device; TMPDIR",
    ):
        assert any(words in line for line in said), (words, said)


def test_c_export(small_disk, model):
    command = ["compile", model, "--target", TARGET, "--format", "c", "-o", "c"]
    first = fails_at(small_disk, command, 3)
    assert not (small_disk.disk / "c").exists() and "No space" in first
    ended, count = small_disk.run(command)
    assert ended.code == 0, ended.err
    before = contents(small_disk.disk / "c")
    said = [fails_at(small_disk, command, n) for n in (2 * count // 3, count - 1)]
    assert contents(small_disk.disk / "c") == before
    assert any("did not make the C library" in line for line in said) and any("cannot write" in line for line in said)


@pytest.mark.parametrize("verb", ["verify", "bench", "inspect"])
def test_at_every_write_of(verb, small_disk, model):
    options = {"verify": [model, "m.mpc"], "bench": ["m.mpc", "--rounds", "1"], "inspect": ["m.mpc"]}[verb]
    command = [verb, *options, "--json", "found.json"]
    small_disk.run(command)  # ONNX Runtime writes a file of its own, once
    ended, count = small_disk.run(command)
    assert ended.code == 0 and count >= 2
    said = [fails_at(small_disk, command, n) for n in range(1, count + 1)]
    assert all("No space left on device" in line for line in said) and "found.json" in said[-1]


def test_profile(small_disk, model):
    """What was measured before the disk was full is not measured again."""
    cells = small_disk.disk / GROWS
    command = profile_command(model)
    ended, count = small_disk.run(command)
    assert ended.code == 0, ended.err
    (small_disk.disk / "lut.json").unlink()
    kept = cells.read_bytes()
    said = [fails_at(small_disk, command, n) for n in (1, 100)]
    assert all("No space left on device" in line for line in said) and cells.read_bytes() == kept
    cells.unlink()
    assert "No space left on device" in fails_at(small_disk, command, count // 2)
    assert small_disk.run(command)[0].code == 0


@pytest.mark.parametrize("size", [512, 20000])
def test_limited_sizes_of_files(size, workshop, model, tmp_path):
    """ulimit -f: LLVM would end the process where it may not write."""
    (tmp_path / "m.mpc").write_text("before")
    ended = workshop.run(compile_command(model), tmp_path, limits={"RLIMIT_FSIZE": size})
    assert ended.code == 2 and any(words in ended.line for words in ("ulimit -f", "File too large", "File size limit"))
    assert contents(tmp_path) == {"m.mpc": b"before"}


def test_a_limit_that_suffices(workshop, model, tmp_path):
    assert workshop.run(compile_command(model), tmp_path).code == 0
    before = (tmp_path / "m.mpc").read_bytes()
    assert workshop.run(compile_command(model), tmp_path, limits={"RLIMIT_FSIZE": 1 << 20}).code == 0
    assert (tmp_path / "m.mpc").read_bytes() == before
