"""Devices that come late, or leave early."""

import threading

from mpcompile.errors import DeviceLost, TargetError
from mpcompile.remote import pool as pools
from mpcompile.remote.pool import Pool
from tests.patience import until
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
    with Pool(source=Asked(Formula("a"), answer=answer), **QUICK) as pool:
        pool.map(lambda device, item: until(lambda: "b" in pool.tallies), [1], lambda *result: told.append(result))
    assert told == [(1, True)] and b.closed


def test_a_device_that_is_lent_while_the_pool_is_closed_is_given_back():
    def answer():
        asked.set()
        until(pool._scout._over.is_set)
        return late

    asked, late = threading.Event(), Formula("late")
    pool = Pool(source=Asked(Formula("a"), answer=answer), **QUICK)
    pool.map(lambda device, item: until(asked.is_set), [1], lambda *_: None)
    pool.close()
    assert late.closed and "late" not in pool.tallies


def test_a_device_that_is_given_back_while_it_is_looked_at_was_not_lost(monkeypatch):
    class Slow(Formula):
        def reference(self):
            until(lambda: self.closed)
            raise DeviceLost("slow: the session was closed")

    monkeypatch.setattr(pools, "CHECK_SECONDS", 0.0)
    lines, shelf = [], Shelf(Formula("a"), Slow("slow"))
    with Pool(source=shelf, warn=lines.append, **QUICK) as pool:
        assert pool.run(lambda device: device.name) == "a"
        pool.rest()
        shelf.put(Formula("b"))
        assert pool.run(lambda device: device.name) == "b"
    assert not lines and pool.tallies["slow"].lost == 0
