"""What a pool makes of what it hears late, of devices that are lost idle, and whom it asks for more."""

import threading
import time
from queue import SimpleQueue

import pytest

from mpcompile.errors import DeviceLost, TargetError, UsageError
from mpcompile.remote import pool as pools
from mpcompile.remote.pool import DevicePool
from mpcompile.remote.source import Scout
from tests import patience
from tests.patience import until
from tests.remote.simulated import Formula, Shelf
from tests.remote.test_pool import measured

QUICK = {"recheck": 0.02, "poll": 0.02, "patience": 30.0}


class Asked(Shelf):
    """Which threads asked it, in order; `__init__` of a pool, and its maps, ask in the caller's."""

    def __init__(self, *devices):
        super().__init__(*devices)
        self.by: list[threading.Thread] = []

    def take(self):
        self.by.append(threading.current_thread())
        return super().take()

    def others(self) -> list[threading.Thread]:
        return [thread for thread in self.by if thread is not threading.main_thread()]


# -- whom it asks ------------------------------------------------------------------------------------------------------
def test_one_thread_asks_for_more_while_something_is_done_and_no_longer():
    shelf = Asked(Formula("a"))

    def work(device, item):
        asked = len(shelf.others())
        return until(lambda: len(shelf.others()) > asked + 2)

    with DevicePool(source=shelf, **QUICK) as pool:
        for _ in range(2):
            pool.run(lambda device: work(device, 1))
            assert not pool._scout.wanted.is_set()
    (scout,) = set(shelf.others())
    assert scout.daemon and not scout.is_alive()


def test_nobody_is_asked_while_nothing_is_wanted_nor_at_the_end():
    shelf = Asked(Formula("a"))
    scout = Scout(shelf, SimpleQueue(), poll=0.001)
    time.sleep(0.2)
    scout.stop()
    assert not shelf.by and not scout._thread.is_alive()


@pytest.mark.parametrize("lent", [Formula("late"), None])
def test_what_is_lent_after_the_end_is_given_back_by_whom_it_was_lent_to(monkeypatch, lent):
    class Slow(Shelf):
        def take(self):
            asked.set()
            until(scout._over.is_set)
            return lent

    asked, events, errors = threading.Event(), SimpleQueue(), []
    monkeypatch.setattr(threading, "excepthook", errors.append)
    scout = Scout(Slow(), events, poll=0.001)
    scout.wanted.set()
    assert asked.wait(patience.SOON)
    scout.stop()
    assert events.empty() and not errors and (lent is None or lent.closed)


def test_where_there_is_nobody_to_ask_no_thread_does():
    before = {thread for thread in threading.enumerate() if thread.name == "scout"}
    with DevicePool([Formula("a"), Formula("b")], **{**QUICK, "poll": patience.PATIENCE}) as pool:
        found = pool.run(lambda device: {thread for thread in threading.enumerate() if thread.name == "scout"})
    assert found <= before


def test_devices_that_are_free_are_taken_when_work_comes_whenever_more_are_asked_for():
    shelf = Asked(Formula("a"))
    with DevicePool(source=shelf, **{**QUICK, "poll": patience.PATIENCE}) as pool:
        pool.rest()
        shelf.put(Formula("b"))
        shelf.put(Formula("c"))
        assert list(measured(pool, [1])) == [1] and list(pool.tallies) == ["a", "b", "c"]
    assert not shelf.others()


def test_nobody_waits_at_the_end_for_the_time_to_give_devices_back():
    """A program that does not close its pool may end at once."""
    with DevicePool(source=Shelf(Formula("a")), idle=patience.PATIENCE, **QUICK) as pool:
        measured(pool, [1])
        (timer,) = [t for t in threading.enumerate() if isinstance(t, threading.Timer) and t.function == pool.rest]
        assert timer.daemon and timer.interval == patience.PATIENCE
    timer.join(patience.SOON)
    assert not timer.is_alive()


# -- what it hears -----------------------------------------------------------------------------------------------------
def test_a_device_that_is_lost_before_it_has_anything_to_do_takes_no_item_along(monkeypatch):
    class Gone(Formula):
        def reference(self):
            raise DeviceLost("gone was lost")

    monkeypatch.setattr(pools, "CHECK_SECONDS", patience.SOON)
    lines, gone = [], Gone("gone")
    with DevicePool([gone, Formula("a")], warn=lines.append, **QUICK) as pool:
        told = measured(pool, range(1, 5))
    assert sorted(told) == [1, 2, 3, 4] and all(len(results) == 1 for results in told.values())
    assert lines == ["gone was lost; 1 of 2 devices go on"] and gone.closed
    assert pool.summary() == ["gone: 0 measurements, lost once", "a: 4 measurements"]


def test_where_all_are_lost_before_they_have_anything_to_do_that_is_said():
    class Gone(Formula):
        def reference(self):
            raise DeviceLost(f"{self.name} was lost")

    class Broken(Formula):
        def reference(self):
            raise ValueError("no clock")

    lines = []
    with DevicePool([Gone("a"), Gone("b")], warn=lines.append, **QUICK) as pool:
        with pytest.raises(
            TargetError, match="^[ab] was lost; no device is left: the same command, run again, goes on"
        ):
            measured(pool, [1])
        assert sorted(len(line) for line in lines) == [len("a was lost"), len("a was lost; 1 of 2 devices go on")]
        with pytest.raises(TargetError, match="^a, b; no device is left: "):
            measured(pool, [1])
    with DevicePool([Broken("c"), Broken("d")], **QUICK) as pool:
        with pytest.raises(TargetError, match="^c, d; no device is left: "):
            measured(pool, [1])
    for device, words in (Gone("e"), "e was lost"), (Broken("f"), "the shelf"):
        with DevicePool(source=Shelf(device), **{**QUICK, "patience": 0.1}) as pool:
            with pytest.raises(
                TargetError, match=f"^{words}; no device came back within 0 s: the same command, run again"
            ):
                measured(pool, [1])


@pytest.mark.parametrize("lent", [True, False])
@pytest.mark.parametrize("late", [ValueError("late"), "late"])
def test_what_work_that_was_broken_off_ends_with_is_nothing_to_a_device(late, lent):
    """Both have something to do in the next map: each waits there for the other."""
    begun, go_on, both, lines = threading.Event(), threading.Event(), threading.Barrier(2), []

    def first(device, item):
        if item == 1:
            assert begun.wait(patience.SOON)
            raise UsageError("no")
        begun.set()
        assert go_on.wait(patience.SOON)
        if isinstance(late, Exception):
            raise late
        return late

    def second(device, item):
        both.wait(patience.SOON)
        return device.name

    devices = [Formula("a"), Formula("b")]
    where = {"source": Shelf(*devices)} if lent else {"devices": devices}
    with DevicePool(**where, warn=lines.append, **QUICK) as pool:
        with pytest.raises(UsageError):
            pool.map(first, [1, 2], lambda *_: None)
        go_on.set()
        until(pool._events.qsize)  # it comes before the next map begins
        if not lent:
            pool.rest()  # there is nobody to give them back to
        told = []
        pool.map(second, [1, 2], lambda *result: told.append(result))
    assert {name for _, name in told} == {"a", "b"} and not lines


def test_work_does_not_wait_for_the_second_look_at_a_device_that_is_kept_out(monkeypatch):
    """Where nobody gets work before all have been looked at."""

    class Slow(Formula):
        looks = 0

        def reference(self):
            self.looks += 1
            assert self.looks == 1 or worked.wait(patience.SOON)
            return super().reference()

    def work(device, item):
        if item == 2:
            until(lambda: slow.looks > 1)
        if item == 3:
            worked.set()
        return device.measure(item)

    monkeypatch.setattr(pools, "CHECK_SECONDS", patience.SOON)
    worked, lines, slow, fast = threading.Event(), [], Slow("slow", 10.0), Formula("fast")
    with DevicePool([slow, fast], warn=lines.append, **QUICK) as pool:
        pool.run(lambda device: None)
        pool.map(work, [1, 2, 3], lambda *_: None)
    assert fast.took == [1, 2, 3] and len(lines) == 1 and "slow is 10.0 times slower" in lines[0]


# -- who is given back -------------------------------------------------------------------------------------------------
def test_a_device_that_comes_when_the_pool_rests_is_given_back_at_once():
    late = Formula("late")
    with DevicePool(source=Shelf(Formula("a")), **QUICK) as pool:
        pool._events.put((None, None, late))  # as the scout does at the last moment
        pool.rest()
        assert late.closed and "late" not in pool.tallies


def test_a_pool_may_be_closed_while_it_gives_its_devices_back():
    class Stuck(Formula):
        def close(self):
            leaves.set()
            go_on.wait(patience.SOON)
            super().close()

    def rest():
        pool.rest()
        rested.append(True)

    leaves, go_on, rested = threading.Event(), threading.Event(), []
    devices = [Stuck("a"), Formula("b")]
    pool = DevicePool(source=Shelf(*devices), **QUICK)
    thread = threading.Thread(target=rest)
    thread.start()
    assert leaves.wait(patience.SOON)
    pool.close()
    go_on.set()
    thread.join(patience.SOON)
    assert rested and all(device.closed for device in devices)
