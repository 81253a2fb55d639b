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
TARGET = "x86-64-v2"


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


class SmallDisk:
    """A workshop on a disk of which each write is counted, and which is full from a given one on."""

    def __init__(self, root: Path):
        (root / "counts").mkdir()
        self.disk, self._count = root / "disk", root / "counts" / "count"
        self.disk.mkdir()
        library = root / "counts" / "full.so"
        source = Path(__file__).with_name("full.c")
        subprocess.run(["gcc", "-shared", "-fPIC", "-O1", "-o", library, source, "-ldl"], check=True, timeout=SOON)
        env = {"LD_PRELOAD": str(library), "FAULT_ROOT": str(self.disk), "FAULT_COUNT": str(self._count)}
        self.workshop = Workshop(*MODULES, env=env)

    def run(self, arguments: list, full_from: int = 0, **more):
        """(what became of the command, how many writes it asked for)"""
        self._count.write_bytes(bytes(4))
        env = {"FAULT_FROM": str(full_from)} if full_from else {}
        ended = self.workshop.run(arguments, self.disk, env=env, **more)
        return ended, int.from_bytes(self._count.read_bytes(), "little")


@pytest.fixture(scope="session")
def small_disk(tmp_path_factory, model):
    found = SmallDisk(tmp_path_factory.mktemp("small"))
    ended, _ = found.run(["compile", model, "--target", TARGET, "-o", "m.mpc"])
    assert ended.code == 0, ended.err
    np.savez(found.disk / "x.npz", x=np.ones((32, 8, 8), np.float32))
    yield found
    found.workshop.close()


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below it, hidden ones included."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}
