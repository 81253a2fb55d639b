"""Devices that come late, or leave early."""

import threading

from mpcompile.errors import DeviceLost, TargetError
from mpcompile.remote import pool as pools
from mpcompile.remote import pool_member
from mpcompile.remote.pool import DevicePool
from tests.patience import SOON, until
from tests.remote.simulated import Formula, Shelf

QUICK = {"recheck": 0.05, "poll": 0.02}


class Asked(Shelf):
    """What the scout asks for is answered by `answer()`."""

    def __init__(self, *devices, answer):
        super().__init__(*devices)
        self.answer = answer

    def take(self):
        return self.answer() if threading.current_thread().name == "scout" else super().take()


def test_a_tracker_that_does_not_answer_once_is_asked_again():
    def answer():
        answers.append(None)
        if len(answers) == 1:
            raise TargetError("no tracker answers")
        return b if len(answers) == 2 else None

    answers, b, told = [], Formula("b"), []
    with DevicePool(source=Asked(Formula("a"), answer=answer), **QUICK) as pool:
        pool.map(lambda device, item: until(lambda: "b" in pool.tallies), [1], lambda *result: told.append(result))
    assert told == [(1, True)] and b.closed


def test_a_device_that_is_lent_while_the_pool_is_closed_is_given_back():
    def answer():
        asked.set()
        until(pool._scout._over.is_set)
        return late

    asked, late = threading.Event(), Formula("late")
    pool = DevicePool(source=Asked(Formula("a"), answer=answer), **QUICK)
    pool.map(lambda device, item: until(asked.is_set), [1], lambda *_: None)
    pool.close()
    assert late.closed and "late" not in pool.tallies


def test_a_device_that_was_given_back_while_it_was_looked_at_was_not_lost(monkeypatch):
    """It says only much later that its session is over."""

    class Slow(Formula):
        def reference(self):
            late.wait(SOON)
            raise DeviceLost("slow: the session was closed")

    def work(device, item):
        if device.name == "b":
            late.set()
            until(lambda: "slow" not in [thread.name for thread in threading.enumerate()])
        return device.name

    monkeypatch.setattr(pools, "CHECK_SECONDS", 0.0)
    monkeypatch.setattr(pool_member, "LEAVE_SECONDS", 0.0)
    late, lines, shelf = threading.Event(), [], Shelf(Formula("a"), Slow("slow"))
    with DevicePool(source=shelf, warn=lines.append, **QUICK) as pool:
        assert pool.run(lambda device: device.name) == "a"
        pool.rest()
        shelf.put(Formula("b"))
        told = []
        pool.map(work, [1], lambda *result: told.append(result))
    assert told == [(1, "b")] and not lines and pool.tallies["slow"].lost == 0
