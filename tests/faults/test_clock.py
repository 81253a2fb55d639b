"""A clock that is set while something is measured or waited for: durations are taken from clocks that nobody sets."""

import ast
import json
import time
from pathlib import Path

import pytest

from mpcompile.errors import TargetError
from mpcompile.remote.pool import DevicePool
from tests.faults.conftest import profile_command
from tests.patience import PATIENCE
from tests.remote.simulated import Formula, Shelf

PACKAGE = Path(__file__).parents[2] / "mpcompile"
WALL = {"time.time", "time.time_ns", "datetime.now", "datetime.utcnow", "datetime.datetime.now"}
OF_FILES = {"runtime/server/process.py"}
"""Compares with the dates of files, which are the wall clock's."""


def test_no_duration_is_the_wall_clocks():
    found = {
        str(path.relative_to(PACKAGE))
        for path in PACKAGE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if (isinstance(node, ast.Attribute) and ast.unparse(node) in WALL)
        or (isinstance(node, ast.ImportFrom) and node.module == "time" and {a.name for a in node.names} & {"time"})
    }
    assert found == OF_FILES


@pytest.mark.parametrize("jump", [-86400.0, 86400.0])
def test_profile(jump, workshop, model, tmp_path):
    command = profile_command(model)
    ended = workshop.run(command, tmp_path, at="mpcompile.latency.cache:Lines.put", what="clock", clock=jump)
    assert ended.reached and ended.code == 0, ended.err
    lines = [json.loads(line) for line in (tmp_path / "lut.json.cells").read_text().splitlines()]
    assert lines and all(0 < line["low"] <= line["seconds"] <= line["high"] < 10 for line in lines)


class SetClock(Shelf):
    """A shelf at which somebody sets the clock; `devices` lie there from the second look on."""

    def __init__(self, jump: float, monkeypatch, *devices):
        super().__init__()
        self.later, self.looks = list(devices), 0
        self.jump, self.patch, self.now = jump, monkeypatch, time.time

    def take(self):
        self.looks += 1
        if self.looks == 1:
            self.patch.setattr(time, "time", lambda: self.now() + self.jump)
        if self.looks == 2:
            self.devices += self.later
        return super().take()


@pytest.mark.parametrize("jump", [-86400.0, 86400.0])
def test_a_pool_that_waits(jump, monkeypatch):
    """It waits on where the clock is set forward, and no longer than it would where it is set back."""
    shelf = SetClock(jump, monkeypatch, Formula("late"))
    with DevicePool(source=shelf, patience=PATIENCE, poll=0.01) as pool:
        found = {}
        pool.map(lambda device, item: device.measure(item), [1, 2], found.__setitem__)
    assert sorted(found) == [1, 2] and shelf.looks >= 2
    with pytest.raises(TargetError, match="no device was free within"):
        DevicePool(source=SetClock(jump, monkeypatch), patience=0.05, poll=0.01)
