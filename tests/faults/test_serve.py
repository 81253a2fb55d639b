"""A device whose disk is full says so to its host in one line, and goes on; its tracker writes nothing at all."""

import signal

import pytest

from mpcompile.errors import ResourceError
from mpcompile.remote.tracker import Key
from tests.faults.conftest import FullDisk
from tests.patience import until
from tests.remote.processes import Process, kernel, library

QUICK = {"stirred": 0, "rounds": 3, "min_time": 1e-5}


@pytest.fixture
def started(monkeypatch, tmp_path):
    """A command that runs on a disk of its own, full from the given write on, with its temporary files there."""
    processes = []

    def start(name: str, full_from: int, *arguments: str) -> tuple[Process, FullDisk]:
        (tmp_path / name).mkdir()
        disk = FullDisk(tmp_path / name)
        with monkeypatch.context() as patch:
            for key, value in (disk.env | {"FAULT_FROM": str(full_from), "TMPDIR": str(disk.disk)}).items():
                patch.setenv(key, value)
            processes.append(Process(name, "--port", "0", *arguments))
        return processes[-1], disk

    yield start
    for process in processes:
        process.end(signal.SIGKILL)


def test_full_disk(started, tmp_path):
    tracker, untouched = started("tracker", 1)
    served, disk = started("serve", FullDisk.MANY, "--tracker", tracker.address, "--key", "board")
    work = {"k": kernel(library(tmp_path), "good")}

    def taken():
        return until(Key(tracker.address, "board").take, unless=served.over)

    served.said("registered")
    device = taken()
    assert device.time_kernels(work, 1, **QUICK).timings["k"].seconds > 0  # it has chosen its place, which Python tries
    disk.fill()
    (tmp_path / "m.mpc").write_bytes(b"never read")
    for ask in (lambda: device.time_kernels(work, 1, **QUICK), lambda: device.run(tmp_path / "m.mpc", {}, 1)):
        with pytest.raises(ResourceError) as error:
            ask()
        said = str(error.value)
        assert said.startswith("board at ") and "temporary f" in said and said.endswith("No space left on device")
    disk.free()
    assert device.time_kernels(work, 1, **QUICK).timings["k"].seconds > 0
    disk.fill()
    device.close()
    served.said(f"cannot write temporary files into {disk.disk}: No space left on device.*; trying again")
    disk.free()
    with taken() as device:
        assert device.time_kernels(work, 1, **QUICK).timings["k"].seconds > 0
    assert untouched.counted == (0, 0) and not list(untouched.disk.iterdir())
    assert served.end() == -signal.SIGTERM or served.process.returncode == 143
    assert not list(disk.disk.glob("mpcompile-*"))
