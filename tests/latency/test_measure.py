"""The measurer on simulated machines, whose truth is known, and once on this one."""

import time

import numpy as np
import pytest

from mpcompile.latency.in_network import cache_stirrer, timer_in_network
from mpcompile.latency.measure import calibrate, measure
from mpcompile.latency.timer import Timer, local
from mpcompile.latency.waiting import ALL_THREADS, NEVER, THIS_THREAD, WaitClock, wait_clock


class Machine:
    """A clock that only work moves. `slowdown(now)` says how many times slower than its best the machine is."""

    def __init__(self, slowdown=lambda now: 1.0):
        self.now = 0.0
        self.wait = 0.0
        self.slowdown = slowdown
        self.log = []

    def timer(self, name, cost, waits=lambda n: 0.0):
        def run(n):
            self.log.append(name)
            waiting = waits(len(self.log))
            seconds = n * cost * self.slowdown(self.now) + waiting
            self.now += seconds
            self.wait += waiting
            return seconds

        return Timer(run, WaitClock(lambda: self.wait))

    def measure(self, subjects, **options):
        self.log.clear()
        return measure(subjects, reference=self.timer("reference", 1e-5), **options)


def test_subjects_take_turns_with_the_reference_between_them():
    machine = Machine()
    machine.measure({"a": machine.timer("a", 0.02), "b": machine.timer("b", 0.03)}, rounds=3)
    assert "".join(name[0] for name in machine.log).endswith("rarbr" * 3)


def test_a_quiet_machine_needs_no_repeats():
    machine = Machine()
    result = machine.measure({"a": machine.timer("a", 0.02), "b": machine.timer("b", 0.05)}, rounds=5)
    assert result["a"].seconds == pytest.approx(0.02) and result["b"].seconds == pytest.approx(0.05)
    assert result.ratio("b", "a") == pytest.approx(2.5)
    assert (result.rounds, result.repeated, result.corrected) == (5, 0, 0)


def test_slow_spells_are_repeated():
    machine = Machine(lambda now: 1.8 if int(now * 10) % 3 == 0 else 1.0)
    result = machine.measure({"a": machine.timer("a", 0.02)}, rounds=25)
    assert result["a"].seconds == pytest.approx(0.02)
    assert result.repeated > 5 and result.corrected == 0 and result["a"].samples == 25


def test_a_machine_that_stays_slow_is_corrected_by_its_reference():
    machine = Machine(lambda now: 1.0 if now < 0.07 else 1.5)
    result = machine.measure({"a": machine.timer("a", 0.02)}, rounds=5, max_rounds=6)
    assert result["a"].seconds == pytest.approx(0.02, rel=0.02)
    assert result.corrected >= 4
    assert "corrected" in result.note()


def test_time_without_a_core_does_not_count():
    machine = Machine()
    always = machine.timer("a", 0.02, waits=lambda turn: 0.013)
    assert machine.measure({"a": always}, rounds=5)["a"].seconds == pytest.approx(0.02)
    sometimes = machine.timer("a", 0.02, waits=lambda turn: 0.013 * (turn % 4 == 0))
    result = machine.measure({"a": sometimes}, rounds=5)
    assert result["a"].seconds == pytest.approx(0.02) and result.corrected == 0


def test_a_timer_of_another_process_takes_its_own_waiting_off():
    machine = Machine()
    elsewhere = machine.timer("a", 0.02, waits=lambda turn: 0.013)

    def seconds(n):
        elsewhere.seconds(n)
        return 0.02 * n

    assert machine.measure({"a": Timer(seconds, NEVER)}, rounds=5)["a"].seconds == pytest.approx(0.02)


def test_the_reference_may_wait_too():
    machine = Machine()
    machine.log = []
    reference = machine.timer("reference", 1e-5, waits=lambda turn: 0.004 * (turn % 3 == 0))
    result = measure({"a": machine.timer("a", 0.02)}, rounds=7, reference=reference)
    assert result["a"].seconds == pytest.approx(0.02) and result.reference_best == pytest.approx(1e-5)


def test_short_subjects_run_often_enough_in_a_sample():
    machine = Machine()
    counts = []
    timer = machine.timer("a", 1e-6)

    def spy(n):
        counts.append(n)
        return timer.seconds(n)

    machine.measure({"a": Timer(spy, timer.waits)}, rounds=3, min_time=0.01)
    assert counts[-1] * 1e-6 >= 0.01
    assert calibrate(machine.timer("b", 3.0), 0.01) == 1


def test_spread_is_the_interquartile_range():
    machine = Machine()
    costs = iter([1.0] * 3 + [1.0, 1.1, 1.2, 1.3, 1.4])
    result = machine.measure({"a": Timer(lambda n: next(costs) * n, NEVER)}, rounds=5)
    assert result["a"].seconds == pytest.approx(1.2)
    assert (result["a"].low, result["a"].high) == pytest.approx((1.1, 1.3))
    assert result["a"].spread == pytest.approx(0.2 / 1.2)
    assert result["a"].to_json()["seconds"] == result["a"].seconds


def test_nothing_to_measure_is_an_error():
    with pytest.raises(ValueError, match="nothing to measure"):
        measure({})


def test_progress_is_reported():
    machine, seen = Machine(), []
    machine.measure({"a": machine.timer("a", 0.02)}, rounds=3, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(0, 3), (1, 3), (2, 3), (3, 3)]


def spin(seconds: float) -> None:
    """Keeps this thread's core for so long, not counting what others had of it meanwhile."""
    until = time.thread_time() + seconds
    while time.thread_time() < until:
        pass


def test_on_this_machine_what_is_not_waiting_is_work():
    """Work that is defined by the time it takes of a core: that is what is left of the seconds when the wait is taken off,
    whatever else runs here; at least once of five times, where the system does not count what a thread waits."""
    timer = local(lambda: spin(0.002))

    def worked(times: int) -> float:
        waited = timer.waited()
        return timer.seconds(times) - (timer.waited() - waited)

    for times in (1, 2):
        assert min(worked(times) for _ in range(5)) == pytest.approx(0.002 * times, rel=0.15)
    assert timer.waits is THIS_THREAD and ALL_THREADS.read() >= 0


def test_a_layer_in_place_runs_after_its_producers_and_counts_alone():
    log = []

    def step(name, seconds):
        def run(n):
            log.append(name)
            return seconds * n

        return Timer(run)

    layer = timer_in_network(step("layer", 0.002), [step("head", 0.5), step("skip", 0.7)], lambda: log.append("stir"))
    assert layer.seconds(4) == pytest.approx(0.008)
    assert log == ["stir", "head", "skip", "layer"] * 4
    costs = iter([0.002, 0.002, 0.9])
    once = timer_in_network(Timer(lambda n: next(costs)), [], lambda: None)
    assert once.seconds(1) == pytest.approx(0.002)


def test_stirring_makes_a_layer_find_its_data_cold():
    data = np.zeros(1 << 17, np.uint8)[::64]  # what the smallest second-level cache holds
    read = local(lambda: data.sum(dtype=np.uint8))
    found = measure(
        {"warm": timer_in_network(read, [], lambda: None), "cold": timer_in_network(read, [], cache_stirrer(1 << 25))},
        rounds=5,
    )
    assert found.ratio("cold", "warm") > 1.05


def test_what_threads_wait_together_is_told_but_not_taken_off():
    """Four threads that wait at once lose a quarter of what they count: the sample is disturbed, how much is unknown."""
    machine = Machine()
    always = machine.timer("a", 0.02, waits=lambda turn: 0.01)
    by_all = Timer(always.seconds, WaitClock(always.waits.read, exact=False))
    assert machine.measure({"a": by_all}, rounds=5)["a"].seconds == pytest.approx(0.03)
    assert machine.measure({"a": always}, rounds=5)["a"].seconds == pytest.approx(0.02)


def test_a_timer_has_a_clock_of_waiting():
    assert wait_clock(1) is THIS_THREAD and THIS_THREAD.exact
    assert wait_clock(2) is ALL_THREADS and not ALL_THREADS.exact
    ticks = iter([1.5, 2.0])
    timer = Timer(lambda n: 3.0 * n, WaitClock(lambda: next(ticks)))
    assert timer.seconds(2) == 6.0 and [timer.waited(), timer.waited()] == [1.5, 2.0]
    assert local(lambda: None).waits is THIS_THREAD and local(lambda: None, NEVER).waited() == 0.0
    assert timer_in_network(local(lambda: None), [], lambda: None).waits is NEVER
