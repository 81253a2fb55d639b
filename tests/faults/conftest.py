"""A workshop that has loaded the compiler and the runtime, one on a disk that fills up, and a small model."""

import subprocess
from pathlib import Path

import numpy as np
import pytest

from benchmarks.networks import Bits, ConvShape, conv_layer
from tests.faults.workshop import Workshop
from tests.patience import SOON

MODULES = (
    "tvm",
    "onnx",
    "mpcompile.api.compile",
    "mpcompile.api.export_c",
    "mpcompile.api.verify",
    "mpcompile.runtime",
)
SEARCHING = (
    *("mpcompile.kernels.tvm_names:meta_schedule", "xgboost", "mpcompile.tuning.tune", "mpcompile.api.tune"),
    *("torch", "mpcompile.search.run", "mpcompile.api.pool_search_device", "mpcompile.report.page", "jinja2"),
)
"""What tune, search and report load besides."""
TARGET = "x86-64-v2"


def profile_command(model: Path) -> list:
    """Quick, into lut.json."""
    return ["profile", model, *f"--target {TARGET} --bits w1a1 --threads 1 --rounds 1 -o lut.json".split()]


@pytest.fixture(scope="session")
def model(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("model") / "m.onnx"
    conv_layer(ConvShape(32, 8, 32), Bits(1, 1)).save(path)
    return path


@pytest.fixture(scope="session")
def workshop():
    found = Workshop(*MODULES)
    yield found
    found.close()


class FullDisk:
    """A folder, `disk`, of which each write is counted by processes that have `env`, and fails from a given one on."""

    MANY = 1 << 30

    def __init__(self, root: Path):
        (root / "counts").mkdir()
        self.disk, self._count = root / "disk", root / "counts" / "count"
        self.disk.mkdir()
        self._set(0)
        library = root / "counts" / "full.so"
        source = Path(__file__).with_name("full.c")
        subprocess.run(["gcc", "-shared", "-fPIC", "-O1", "-o", library, source, "-ldl"], check=True, timeout=SOON)
        self.env = {"LD_PRELOAD": str(library), "FAULT_ROOT": str(self.disk), "FAULT_COUNT": str(self._count)}

    def _set(self, count: int) -> None:
        with open(self._count, "r+b" if self._count.exists() else "wb") as file:
            file.write(count.to_bytes(4, "little") + bytes(4))

    @property
    def counted(self) -> tuple[int, int]:
        """(all writes, those to paths that hold $FAULT_AT)"""
        data = self._count.read_bytes()
        return int.from_bytes(data[:4], "little"), int.from_bytes(data[4:], "little")

    def fill(self) -> None:
        """From now on it is full, to processes with $FAULT_FROM as MANY says."""
        self._set(self.MANY)

    def free(self) -> None:
        self._set(0)


class SmallDisk(FullDisk):
    """And a workshop on it."""

    def __init__(self, root: Path, *modules: str):
        super().__init__(root)
        self.workshop = Workshop(*modules, env=self.env)

    def folder(self, name: str) -> Path:
        """One on this disk."""
        (self.disk / name).mkdir()
        return self.disk / name

    def run(self, arguments: list, full_from: int = 0, full_at: str = "", folder: Path | None = None, **more):
        """(what became of the command, how many writes it asked for, with `full_at` of paths that hold this)"""
        self.free()
        env = {"FAULT_FROM": str(full_from)} if full_from else {}
        env |= {"FAULT_AT": full_at} if full_at else {}
        ended = self.workshop.run(arguments, folder or self.disk, env=env, **more)
        return ended, self.counted[bool(full_at)]


@pytest.fixture(scope="session")
def small_disk(tmp_path_factory, model):
    found = SmallDisk(tmp_path_factory.mktemp("small"), *MODULES)
    ended, _ = found.run(["compile", model, "--target", TARGET, "-o", "m.mpc"])
    assert ended.code == 0, ended.err
    np.savez(found.disk / "x.npz", x=np.ones((32, 8, 8), np.float32))
    yield found
    found.workshop.close()


@pytest.fixture(scope="session")
def searching_disk(tmp_path_factory):
    """The same for tune, search and report."""
    found = SmallDisk(tmp_path_factory.mktemp("searching"), *MODULES, *SEARCHING)
    yield found
    found.workshop.close()


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below it, hidden ones included."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}
