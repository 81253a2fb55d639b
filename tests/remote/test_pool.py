"""A pool against devices that die, come back, are slow, throttle, or are of another kind."""

import threading
from dataclasses import replace

import pytest

from mpcompile.errors import DeviceLost, TargetError, UsageError
from mpcompile.remote import pool as pools
from mpcompile.remote.pool import DevicePool
from tests import patience
from tests.patience import until
from tests.remote.simulated import Formula, Shelf

QUICK = {"recheck": 0.05, "poll": 0.02}
SOON = {**QUICK, "patience": 0.3}
"""For what is to be given up."""


def measured(pool, items):
    """Item → every result that `done` was told, in order."""
    told = {}
    pool.map(lambda device, item: device.measure(item), items, lambda item, r: told.setdefault(item, []).append(r))
    return told


def seconds(result):
    return result["it"].seconds


def right(told):
    return {item: pytest.approx(item * 1e-6) for item in told}


def test_devices_work_side_by_side_and_each_item_is_done_once():
    """Two devices that each wait for the other: neither could go on alone."""
    both = threading.Barrier(2)
    devices = [Formula("a"), Formula("b")]
    here = threading.current_thread()
    told = []

    def work(device, item):
        both.wait(patience.SOON)
        return device.measure(item)

    with DevicePool(devices, **QUICK) as pool:
        pool.map(work, range(1, 11), lambda item, r: told.append((item, seconds(r), threading.current_thread())))
    assert sorted((item, s) for item, s, _ in told) == [(i, pytest.approx(i * 1e-6)) for i in range(1, 11)]
    assert {thread for *_, thread in told} == {here}
    assert len(devices[0].took) == len(devices[1].took) == 5
    assert pool.summary() == ["a: 5 measurements", "b: 5 measurements"]


def test_one_device_works_in_the_callers_thread():
    threads = []
    with DevicePool([Formula("a")]) as pool:
        pool.map(lambda device, item: threads.append(threading.current_thread()), [1, 2], lambda *_: None)
    assert set(threads) == {threading.current_thread()}


def test_a_result_is_told_before_the_next_items_are_done():
    """So that everything is on disk at once."""
    device, on_disk = Formula("a"), []
    with DevicePool([device], **QUICK) as pool:

        def done(item, result):
            on_disk.append(item)
            if len(on_disk) == 3:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            pool.map(lambda d, item: d.measure(item), range(1, 9), done)
        assert on_disk == device.took == [1, 2, 3]
        assert list(measured(pool, [7])) == [7]


def test_an_interrupt_in_the_middle_of_work_leaves_a_pool_that_works():
    def interrupted(device, item):
        raise KeyboardInterrupt

    with DevicePool([Formula("a")], **QUICK) as pool:
        with pytest.raises(KeyboardInterrupt):
            pool.map(interrupted, [1], lambda *_: None)
        assert list(measured(pool, [7])) == [7]


def test_a_lost_devices_item_goes_to_another_and_the_device_comes_back():
    lines = []
    again = Formula("a")
    shelf = Shelf(Formula("a", dies=lambda item: True), Formula("b", dies=lambda item: item == 20 and not back()))

    def back():
        """Nobody goes beyond this item before it has come back and done something."""
        return until(lambda: again.took)

    def warn(line):
        lines.append(line)
        shelf.put(again)

    with DevicePool(source=shelf, warn=warn, **QUICK) as pool:
        told = measured(pool, range(1, 41))
    assert {item: seconds(r[-1]) for item, r in told.items()} == right(told) and len(told) == 40
    assert again.took and all(len(r) == 1 for r in told.values())
    assert pool.tallies["a"].lost == 1 and "lost once" in pool.summary()[0]
    assert lines == ["a was lost; 1 of 2 devices go on"]


def test_an_item_that_kills_two_devices_is_told_as_that():
    def dies(item):
        return item == 5 and (shelf.put(Formula("c", dies=dies)) or True)

    shelf = Shelf(Formula("a", dies=dies), Formula("b", dies=dies))
    with DevicePool(source=shelf, **QUICK) as pool:
        told = measured(pool, range(1, 10))
    assert isinstance(told[5][0], DeviceLost) and len(told) == 9
    assert sum(tally.lost for tally in pool.tallies.values()) == 2
    assert all(seconds(told[i][0]) == pytest.approx(i * 1e-6) for i in range(1, 10) if i != 5)
    with DevicePool([Formula("a", dies=dies), Formula("b", dies=dies), Formula("c", dies=dies)], **QUICK) as pool:
        with pytest.raises(DeviceLost):
            pool.run(lambda device: device.measure(5))
    assert sum(tally.lost for tally in pool.tallies.values()) == 2


@pytest.mark.parametrize("cause", ["server", "idle"])
def test_an_item_is_not_blamed_for_devices_that_were_stopped_or_took_leave(cause):
    class Leaves(Formula):
        def measure(self, item):
            shelf.put(next(others))
            raise DeviceLost(f"{self.name} leaves", cause)

    others = iter([Leaves("b"), Leaves("c"), Formula("d")])
    shelf = Shelf(Leaves("a"))
    with DevicePool(source=shelf, **QUICK) as pool:
        told = measured(pool, [5])
    assert [seconds(r) for r in told[5]] == [right(told)[5]]
    assert [pool.tallies[name].lost for name in "abcd"] == [1, 1, 1, 0]


def test_no_device_left_ends_with_one_line_and_keeps_what_was_measured():
    def dies(item):
        return item > 3

    kept = []
    with DevicePool(source=Shelf(Formula("a", dies=dies)), **SOON) as pool:
        with pytest.raises(TargetError, match="a was lost; no device came back.*goes on with all that was measured"):
            pool.map(lambda d, item: d.measure(item), range(1, 10), lambda item, _: kept.append(item))
    assert kept == [1, 2, 3]
    with pytest.raises(TargetError, match="no device is left"):
        measured(DevicePool([Formula("a", dies=dies)], **SOON), [5])


def test_nothing_to_begin_with():
    with pytest.raises(TargetError, match="the shelf: no device was free"):
        DevicePool(source=Shelf(), **SOON)


@pytest.mark.parametrize("first", [0, 1])
def test_a_slow_device_is_named_and_its_numbers_are_kept_out(monkeypatch, first):
    """Whichever of the two answers first; it gets nothing to do."""
    monkeypatch.setattr(pools, "CHECK_SECONDS", patience.SOON)
    lines = []
    slow, fast = Formula("slow", 10.0), Formula("fast", pause=0.002)
    with DevicePool([slow, fast][:: 1 if first == 0 else -1], warn=lines.append, **QUICK) as pool:
        told = measured(pool, range(1, 30))
    assert {item: seconds(r[-1]) for item, r in told.items()} == right(told)
    assert [line for line in lines if "slow is 10.0 times slower than the others" in line] == lines and len(lines) == 1
    assert "slow: 0 measurements, kept out once, 10.0× slower" in pool.summary()
    assert not slow.took


def test_what_a_slow_device_did_before_a_faster_one_joined_is_done_again():
    def work(device, item):
        if item == 5 and device is slow:
            shelf.put(fast)
            until(lambda: pool.best == fast.reference())
        return device.measure(item)

    slow, fast = Formula("slow", 10.0), Formula("fast")
    shelf, told = Shelf(slow), {}
    with DevicePool(source=shelf, **QUICK) as pool:
        pool.map(work, range(1, 60), lambda item, r: told.setdefault(item, []).append(seconds(r)))
    assert {item: all_[-1] for item, all_ in told.items()} == right(told) and len(told) == 59
    assert told[1] == [pytest.approx(1e-5), pytest.approx(1e-6)] and pool.tallies["slow"].measured == 0


def test_a_device_that_throttles_for_a_while_is_used_again():
    calls = iter([1.0, 1.0, 1.0, 4.0, 4.0, *[1.0] * 100])
    lines = []
    with DevicePool([Formula("a", lambda: next(calls))], warn=lines.append, **QUICK) as pool:
        told = measured(pool, range(1, 9))
    assert {item: seconds(r[-1]) for item, r in told.items()} == right(told)
    assert len(lines) == 1 and "4.0 times slower than it did before" in lines[0]


def test_a_device_that_stays_slow_is_given_up():
    calls = iter([1.0, 1.0])
    kept = []
    with DevicePool([Formula("a", lambda: next(calls, 4.0))], **SOON) as pool:
        with pytest.raises(TargetError, match="a stays 4.0 times slower.*goes on with all"):
            pool.map(lambda d, item: d.measure(item), range(1, 9), lambda item, _: kept.append(item))
    assert kept == [1, 2]


def test_one_that_is_slow_only_while_it_works_is_given_up_too():
    class Hot(Formula):
        def reference(self):
            return 1e-5

    with DevicePool([Hot("a", 4.0)], **SOON) as pool:
        pool.known(1e-5)
        with pytest.raises(TargetError, match="a stays 4.0 times slower"):
            measured(pool, range(1, 3))


def test_what_a_device_warns_of_is_passed_on_once():
    lines = []
    device = Formula("a")
    measure = device.measure
    device.measure = lambda item: replace(measure(item), warnings=("it is hot",))
    with DevicePool([device], warn=lines.append, **QUICK) as pool:
        measured(pool, [1, 2, 3])
    assert lines == ["a: it is hot"]


def test_what_was_recorded_of_a_device_counts():
    with DevicePool([Formula("a", 2.0)], **SOON) as pool:
        assert len(measured(pool, [1, 2])) == 2
        pool.known(1e-5)
        with pytest.raises(TargetError, match="a stays 2.0 times slower"):
            measured(pool, [3])


def test_another_kind_of_device_is_left_out():
    lines = []
    other = Formula("b", cpu="another formula")
    with DevicePool([Formula("a"), other], warn=lines.append, **QUICK) as pool:
        measured(pool, [1, 2, 3])
    assert other.closed and not other.took and "b is left out: it is x86_64, another formula" in lines[0]


def test_what_goes_wrong_besides_is_raised_at_once():
    def work(device, item):
        raise UsageError("no")

    with DevicePool([Formula("a"), Formula("b")], **QUICK) as pool:
        with pytest.raises(UsageError, match="no"):
            pool.map(work, [1, 2, 3], lambda *_: None)
        assert len(measured(pool, [1, 2])) == 2


def test_devices_are_given_back_and_taken_again():
    a, b = Formula("a"), Formula("b")
    shelf = Shelf(a)
    pool = DevicePool(source=shelf, **QUICK)
    measured(pool, [1])
    pool.rest()
    shelf.put(b)
    measured(pool, [2])
    assert a.closed and not b.closed
    pool.close()
    assert a.closed and b.closed and b.took == [2]


def test_devices_that_are_asked_nothing_for_a_while_are_given_back():
    a, b = Formula("a"), Formula("b")
    shelf = Shelf(a)
    with DevicePool(source=shelf, idle=0.05, **QUICK) as pool:
        measured(pool, [1])
        until(lambda: a.closed)
        shelf.put(b)
        measured(pool, [2])
    assert a.took == [1] and b.took == [2]


def test_a_device_that_comes_while_the_pool_rests_works_when_it_is_asked_again():
    """The scout's question may take longer than the pool's patience with idle devices."""
    late = Formula("late")
    pool = DevicePool(source=Shelf(Formula("a")), **SOON)
    measured(pool, [1])
    pool.rest()
    pool._events.put((None, None, late))  # as the scout does, whose question took its time
    assert list(measured(pool, [2])) == [2] and late.took == [2]
    pool.close()


def test_a_device_that_comes_when_nobody_wants_it_any_more_is_given_back():
    a, b = Formula("a"), Formula("b")
    pool = DevicePool(source=Shelf(a), **QUICK)
    measured(pool, [1])
    pool._events.put((None, None, b))  # as the scout does at the last moment
    pool.close()
    assert a.closed and b.closed and not b.took
