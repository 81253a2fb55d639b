"""What a pool says of its devices, and whom it takes, keeps out, and tells the results of."""

import threading
import time

import pytest

from mpcompile.errors import TargetError, UsageError
from mpcompile.latency import same_speed
from mpcompile.remote import pool as pools
from mpcompile.remote.pool_member import Tally
from tests import patience
from tests.patience import until
from tests.remote.simulated import Formula, Shelf
from tests.remote.test_pool import measured

Pool = pools.DevicePool
QUICK = {"recheck": 0.02, "poll": 0.02, "patience": 30.0}


# -- who is there ------------------------------------------------------------------------------------------------------
def test_a_pool_is_named_by_its_source_or_by_its_devices():
    with Pool([Formula("a"), Formula("b")], **QUICK) as pool:
        assert pool.name == "a, b" and pool.devices_at_once == 2 and pool.elsewhere
    with Pool(source=Shelf(Formula("c")), **QUICK) as pool:
        assert pool.name == "the shelf" and pool.devices_at_once == 1 and pool.elsewhere


def test_this_machine_disturbs_itself_and_may_be_slower():
    with Pool.local() as pool:
        assert not pool.elsewhere and pool.devices_at_once == 1 and pool.slower == same_speed.SLOWER_HERE == 3.0
    with Pool([Formula("a")]) as pool:
        assert pool.slower == same_speed.SLOWER == 1.5


def test_devices_are_alike_up_to_the_factor():
    assert same_speed.same_speed(2.9, 2.0) and not same_speed.same_speed(3.0, 2.0)
    assert same_speed.same_speed(5.9, 2.0, slower=3.0) and not same_speed.same_speed(6.0, 2.0, slower=3.0)


def test_how_many_there_are_is_asked_again_where_all_were_given_back():
    shelf = Shelf(Formula("a"), Formula("b"))
    with Pool(source=shelf, **QUICK) as pool:
        assert pool.devices_at_once == 2
        pool.rest()
        shelf.put(Formula("c"))
        assert pool.devices_at_once == 1 and list(pool.tallies) == ["a", "b", "c"]


def test_devices_without_a_source_are_kept_when_there_is_nothing_to_do():
    device = Formula("a")
    with Pool([device], idle=0.01, **QUICK) as pool:
        measured(pool, [1])
        pool.rest()
        assert pool.devices_at_once == 1 and not device.closed
    assert device.closed


@pytest.mark.parametrize("changed", [{"arch": "aarch64"}, {"cpu": "another formula"}])
def test_an_architecture_and_a_cpu_are_each_enough_to_be_left_out(changed):
    lines, other = [], Formula("b", **changed)
    with Pool([Formula("a"), other, Formula("c", cores=99)], warn=lines.append, **QUICK) as pool:
        assert pool.devices_at_once == 2 and pool.about.cores == 4
    arch, cpu = changed.get("arch", "x86_64"), changed.get("cpu", "a formula")
    assert lines == [f"b is left out: it is {arch}, {cpu}, the others are x86_64, a formula; give it a key of its own"]
    assert other.closed and "b" not in pool.tallies


def test_that_all_are_busy_is_said_once_after_a_while(monkeypatch):
    monkeypatch.setattr(pools, "BUSY_SECONDS", 0.05)
    lines, shelf = [], Shelf()
    threading.Timer(0.4, lambda: shelf.put(Formula("late"))).start()
    with Pool(source=shelf, warn=lines.append, **QUICK) as pool:
        assert list(pool.tallies) == ["late"]
    assert lines == ["the shelf: all devices are busy; waiting for one"]


def test_a_device_that_is_soon_free_is_not_worth_a_word():
    lines, shelf = [], Shelf()
    threading.Timer(0.1, lambda: shelf.put(Formula("late"))).start()
    with Pool(source=shelf, warn=lines.append, **QUICK):
        assert not lines


def test_what_wants_an_answer_of_a_tracker_that_is_gone_goes_on_with_what_there_is():
    class Gone(Shelf):
        def take(self):
            if self.devices:
                return super().take()
            raise TargetError("no tracker answers")

    with Pool(source=Gone(Formula("a")), **QUICK) as pool:
        assert list(measured(pool, [1])) == [1]
    with pytest.raises(TargetError, match="no tracker answers"):
        Pool(source=Gone(), **QUICK)


# -- how fast they are -------------------------------------------------------------------------------------------------
def test_the_best_reference_is_the_recorded_one_or_todays():
    with Pool([Formula("a", 2.0)], **QUICK) as pool:
        assert pool.known(5e-5) == 2e-5
        assert pool.known(1e-5) == 1e-5 == pool.best
        assert pool.known(3e-5) == 1e-5


@pytest.mark.parametrize("slow, counts", [(1.49, True), (1.51, False)])
def test_half_as_slow_again_is_too_slow(monkeypatch, slow, counts):
    monkeypatch.setattr(pools, "CHECK_SECONDS", patience.SOON)
    device = Formula("slow", slow)
    with Pool([device, Formula("fast", pause=0.002)], **QUICK) as pool:
        measured(pool, range(1, 20))
    assert bool(device.took) == counts == (pool.tallies["slow"].kept_out == 0)
    assert pool.tallies["slow"].ratio == pytest.approx(1.0 if counts else slow)


def test_nobody_gets_work_before_all_have_been_looked_at(monkeypatch):
    """The last to answer is the fastest: what the others had done would have been for nothing."""
    monkeypatch.setattr(pools, "CHECK_SECONDS", patience.SOON)

    class Late(Formula):
        def reference(self):
            time.sleep(0.3)
            return super().reference()

    first = Formula("first", 10.0)
    with Pool([first, Late("late")], **QUICK) as pool:
        measured(pool, range(1, 5))
    assert not first.took


def test_work_waits_for_the_first_look_at_a_device_only_so_long(monkeypatch):
    monkeypatch.setattr(pools, "CHECK_SECONDS", 0.1)
    looked = threading.Event()

    class Never(Formula):
        def reference(self):
            assert looked.wait(patience.SOON)
            return super().reference()

        def close(self):
            looked.set()

    lines, first = [], Formula("first")
    with Pool([first, Never("never")], warn=lines.append, **{**QUICK, "recheck": patience.PATIENCE}) as pool:
        assert list(measured(pool, [1, 2])) == [1, 2]
    assert first.took == [1, 2] and not lines


def test_a_device_is_kept_out_once_for_all_the_time_that_it_is_slow():
    """Slow at the second item and slower at the first look afterwards; then as before, and slow again."""
    lines, calls = [], iter([1.0, 4.0, 8.0, 1.0, 1.0, 1.0, 2.0])
    with Pool([Formula("a", lambda: next(calls, 1.0))], warn=lines.append, **QUICK) as pool:
        assert list(measured(pool, range(1, 5))) == [1, 2, 3, 4]
        assert pool.last == "a"
    assert [line.split(" is ")[1].split(" than")[0] for line in lines] == ["4.0 times slower", "2.0 times slower"]
    assert all(line.endswith("than it did before, by the reference kernel: its numbers are kept out") for line in lines)
    assert pool.summary() == ["a: 4 measurements, kept out twice, 8.0× slower"]


def test_a_device_that_is_kept_out_is_left_alone_for_a_while():
    kept_out, looked = [], []

    class Hot(Formula):
        def reference(self):
            looked.append(time.monotonic())
            return super().reference()

    calls = iter([1.0, 4.0])
    hot = Hot("hot", lambda: next(calls, 1.0))
    with Pool([hot], warn=lambda _: kept_out.append(time.monotonic()), **{**QUICK, "recheck": 0.3}) as pool:
        assert list(measured(pool, [1, 2])) == [1, 2]
    assert len(kept_out) == len(looked) == 1 and looked[0] - kept_out[0] > 0.25


def test_one_that_cannot_be_looked_at_is_left_out_and_said_to_be():
    class Broken(Formula):
        def reference(self):
            raise ValueError("no clock")

    lines, broken = [], Broken("broken")
    with Pool([Formula("a"), broken], warn=lines.append, **QUICK) as pool:
        assert len(measured(pool, range(1, 5))) == 4
        until(lambda: lines or not measured(pool, [1]))
    assert lines == ["broken is left out: no clock"] and broken.closed and not broken.took


# -- whose results count -----------------------------------------------------------------------------------------------
def test_what_comes_late_of_work_that_was_broken_off_is_nobodys_result():
    begun, go_on = threading.Event(), threading.Event()

    def first(device, item):
        if item == 1:
            assert begun.wait(patience.SOON)
            raise UsageError("no")
        begun.set()
        assert go_on.wait(patience.SOON)
        return "old"

    def second(device, item):
        go_on.set()
        return f"new {item}"

    with Pool([Formula("a"), Formula("b")], **QUICK) as pool:
        with pytest.raises(UsageError):
            pool.map(first, [1, 2], lambda *_: None)
        told = []
        pool.map(second, range(20), lambda *result: told.append(result))
    assert sorted(told) == [(item, f"new {item}") for item in range(20)]


def test_a_run_gives_what_its_work_returns_and_whose_it_was():
    with Pool([Formula("a")], **QUICK) as pool:
        assert pool.run(lambda device: device.name) == "a" == pool.last
        assert pool.run(lambda device: None) is None
        with pytest.raises(UsageError, match="^no$"):
            pool.run(lambda device: (_ for _ in ()).throw(UsageError("no")))


# -- words -------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "tally, words",
    [
        (Tally(), "0 measurements"),
        (Tally(1), "1 measurement"),
        (Tally(2, lost=1), "2 measurements, lost once"),
        (Tally(2, lost=2, kept_out=3, ratio=1.26), "2 measurements, kept out 3 times, 1.3× slower, lost twice"),
    ],
)
def test_what_became_of_a_device(tally, words):
    assert tally.words() == words


def test_a_tracker_and_a_key_belong_together(monkeypatch):
    monkeypatch.delenv("MPCOMPILE_TRACKER", raising=False)
    with pytest.raises(UsageError, match="^--tracker h:1 says where devices are, and --key which: name a key, too$"):
        pools.open_pool("h:1")
    with pytest.raises(UsageError, match="^--key k says which devices, and --tracker HOST:PORT, or MPCOMPILE_TRACKER"):
        pools.open_pool(key="k")
    monkeypatch.setenv("MPCOMPILE_TRACKER", "127.0.0.1:1")
    with pytest.raises(TargetError, match="no tracker answers at 127.0.0.1:1"):
        pools.open_pool(key="k")
    with pytest.raises(TargetError, match="no tracker answers at 127.0.0.1:2"):
        pools.open_pool("127.0.0.1:2", "k")
    with pools.open_pool() as pool:
        assert not pool.elsewhere


def test_a_pool_of_a_key_says_what_it_says_to_the_caller_and_gives_back_when_it_was_asked_to(monkeypatch):
    class Keyed(Shelf):
        def __init__(self, tracker, key):
            super().__init__(device, Formula("other", cpu="another formula"))
            asked.append((tracker, key))

    device, asked, lines = Formula("a"), [], []
    monkeypatch.setattr("mpcompile.remote.tracker.Key", Keyed)
    monkeypatch.setenv("MPCOMPILE_TRACKER", "h:1")
    with pools.open_pool("h:2", "k", warn=lines.append, idle=0.05) as pool:
        assert pool.run(lambda device: device.name) == "a"
        until(lambda: device.closed)
    assert asked == [("h:2", "k")] and len(lines) == 1 and lines[0].startswith("other is left out: ")
