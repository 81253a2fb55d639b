"""How long a pool waits, for whom, and when it looks again; its clock goes on when it is told to."""

import pytest

from mpcompile.errors import TargetError
from mpcompile.remote import pool as pools
from mpcompile.remote import work_items
from mpcompile.remote.pool import DevicePool
from tests.patience import until
from tests.remote.simulated import Clock, Formula, Shelf


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(pools, "time", clock)
    monkeypatch.setattr(work_items, "time", clock)
    return clock


class Later(Shelf):
    """Its devices are free after so many seconds."""

    def __init__(self, clock, seconds, *devices):
        super().__init__(*devices)
        self.clock, self.free_at = clock, clock.now + seconds

    def take(self):
        return super().take() if self.clock.now >= self.free_at else None


# -- for the first -----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("poll, asked", [(0.5, 7), (1.0, 4), (2.0, 4)])
def test_a_pool_asks_for_its_first_device_every_second_or_more_often(clock, poll, asked):
    with pytest.raises(TargetError, match="^the shelf: no device was free within 3 s$"):
        DevicePool(source=Shelf(), patience=3.0, poll=poll)
    assert clock.slept == [min(poll, 1.0)] * asked


@pytest.mark.parametrize("seconds, words", [(0, 0), (1, 0), (16, 0), (17, 1), (100, 1), (121, 1)])
def test_that_all_are_busy_is_worth_a_word_after_fifteen_seconds(clock, seconds, words):
    lines = []
    with DevicePool(source=Later(clock, seconds, Formula("a")), warn=lines.append) as pool:
        assert list(pool.tallies) == ["a"] and len(clock.slept) == seconds
    assert lines == ["the shelf: all devices are busy; waiting for one"] * words


# -- for those that are kept out ---------------------------------------------------------------------------------------
def test_what_others_do_does_not_put_off_the_next_look_at_a_device_that_is_kept_out(clock, monkeypatch):
    class Slow(Formula):
        looks = 0

        def reference(self):
            self.looks += 1
            return super().reference()

    def work(device, item):
        if item == 10:  # it was kept out nine seconds ago or more
            until(lambda: slow.looks > 1)
        clock.now += 1.0
        return device.measure(item)

    slow = Slow("slow", 10.0)
    with DevicePool([slow, Formula("fast")], recheck=5.0) as pool:
        pool.map(work, range(20), lambda *_: None)
    assert pool.summary() == ["slow: 0 measurements, kept out once, 10.0× slower", "fast: 20 measurements"]


# -- for work ----------------------------------------------------------------------------------------------------------
def test_work_may_take_longer_than_a_pool_is_patient(clock):
    def work(device, item):
        clock.now += 1000.0
        return device.measure(item)

    with DevicePool([Formula("a")], patience=120.0) as pool:
        pool.map(work, [1, 2], lambda *_: None)
    assert pool.summary() == ["a: 2 measurements"]


def test_so_may_the_first_look_at_a_device(clock):
    class Slow(Formula):
        def reference(self):
            clock.now += 1000.0
            asked = clock.asked
            until(lambda: clock.asked > asked + 5)  # meanwhile the pool has thought about it
            return super().reference()

    with DevicePool(source=Shelf(Slow("a")), patience=120.0, recheck=0.02) as pool:
        assert pool.run(lambda device: device.name) == "a"


class Looked(Formula):
    """A look at it takes so many seconds; one that is not `hot` then is slow only while it works."""

    def __init__(self, clock, name, slow, seconds, hot=True):
        super().__init__(name, slow)
        self.clock, self.seconds, self.hot, self.looks = clock, seconds, hot, 0

    def reference(self):
        self.clock.now += self.seconds
        self.looks += 1
        return super().reference() if self.hot else 1e-5


def test_so_may_work_on_a_device_that_was_slow_in_the_last_map(clock):
    def work(device, item):
        clock.now += 1000.0
        return device.measure(item)

    slow = [4.0]
    device = Looked(clock, "a", lambda: slow[0], 10.0)
    with DevicePool([device], patience=120.0, recheck=0.0) as pool:
        pool.best = 1e-5
        with pytest.raises(
            TargetError, match="^a stays 4.0 times slower than it was, or than others, by the reference"
        ):
            pool.map(work, [1], lambda *_: None)
        assert device.looks == 13  # ten seconds each
        slow[0] = 1.0
        pool.map(work, [1], lambda *_: None)
    assert pool.summary() == ["a: 1 measurement, kept out once, 4.0× slower"]


@pytest.mark.parametrize("seconds, worked", [(100.0, 5), (10.0, 13)])
def test_one_that_is_slow_only_while_it_works_is_given_up_after_five_times_and_two_minutes(clock, seconds, worked):
    def work(device, item):
        clock.now += seconds
        return device.measure(item)

    device = Looked(clock, "a", 4.0, 0.0, hot=False)
    with DevicePool([device], patience=120.0, recheck=0.0) as pool:
        pool.best = 1e-5
        with pytest.raises(TargetError, match="^a stays 4.0 times slower"):
            pool.map(work, [1], lambda *_: None)
    assert len(device.took) == worked


@pytest.mark.parametrize("seconds, slow, given_up", [(100.0, 4, 5), (10.0, 11, 13)])
def test_both_are_counted_from_the_last_result_that_counts(clock, seconds, slow, given_up):
    def work(device, item):
        clock.now += seconds
        return device.measure(item)

    factors, told = iter([*[4.0] * slow, 1.0] * 2), []
    device = Looked(clock, "a", lambda: next(factors, 4.0), 0.0, hot=False)
    with DevicePool([device], patience=120.0, recheck=0.0) as pool:
        pool.best = 1e-5
        with pytest.raises(TargetError, match="^a stays 4.0 times slower"):
            pool.map(work, [1, 2, 3], lambda item, _: told.append(item))
    assert told == [1, 2] and device.took == [1] * (slow + 1) + [2] * (slow + 1) + [3] * given_up


def test_the_slowest_of_those_that_stay_slow_is_named(clock):
    slow = [Looked(clock, name, factor, 10.0) for name, factor in (("a", 2.0), ("b", 4.0), ("c", 3.0))]
    with DevicePool(slow, patience=120.0, recheck=0.0) as pool:
        pool.best = 1e-5
        with pytest.raises(TargetError, match="^b stays 4.0 times slower"):
            pool.map(lambda device, item: device.measure(item), [1], lambda *_: None)
