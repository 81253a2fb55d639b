"""A device of a pool, and its thread: what it reports, and how it ends."""

import threading
import time

import pytest

from mpcompile.remote import pool_member
from mpcompile.remote.pool_member import Member, Tally
from tests.patience import SOON
from tests.remote.simulated import Formula


class Reports:
    """Everything that a member reported; `come` where there is one."""

    def __init__(self):
        self.all, self.come = [], threading.Event()

    def __call__(self, *event) -> None:
        self.all.append(event)
        self.come.set()


def thread_of(name: str) -> threading.Thread:
    (found,) = [thread for thread in threading.enumerate() if thread.name == name]
    return found


@pytest.mark.parametrize("wrong", [ValueError("no"), KeyboardInterrupt(), SystemExit(3)])
def test_what_work_raises_in_its_thread_is_reported_and_the_thread_goes_on(wrong):
    def fails(device):
        raise wrong

    reports = Reports()
    member = Member(Formula("its own"), Tally(), reports, threaded=True)
    assert thread_of("its own").daemon  # work that never ends does not keep a program
    member.give("first", fails)
    assert reports.come.wait(SOON)
    reports.come.clear()
    member.give("second", lambda device: device.name)
    assert reports.come.wait(SOON)
    assert reports.all == [(member, "first", wrong), (member, "second", "its own")]
    member.leave()


def test_without_a_thread_an_interrupt_is_the_callers():
    def interrupted(device):
        raise KeyboardInterrupt

    def fails(device):
        raise wrong

    wrong, reports = ValueError("no"), Reports()
    member = Member(Formula("nobody's own"), Tally(), reports, threaded=False)
    assert "nobody's own" not in [thread.name for thread in threading.enumerate()]
    with pytest.raises(KeyboardInterrupt):
        member.give("first", interrupted)
    member.give("second", fails)
    assert reports.all == [(member, "second", wrong)]
    member.leave()


def test_one_that_leaves_waits_for_the_end_of_its_work():
    class Long(Formula):
        def close(self):
            super().close()
            go_on.set()

    def work(device):
        begun.set()
        assert go_on.wait(SOON)
        time.sleep(0.2)  # it takes a moment to notice
        return "broken off"

    begun, go_on, reports, device = threading.Event(), threading.Event(), Reports(), Long("long")
    member = Member(device, Tally(), reports, threaded=True)
    member.give("first", work)
    assert begun.wait(SOON)
    thread = thread_of("long")
    member.leave()
    assert not thread.is_alive() and reports.all == [(member, "first", "broken off")] and device.closed


def test_one_that_cannot_be_given_back_leaves_all_the_same():
    class Gone(Formula):
        def close(self):
            raise OSError("it is gone")

    member = Member(Gone("gone for good"), Tally(), Reports(), threaded=True)
    thread = thread_of("gone for good")
    member.leave()
    assert not thread.is_alive()


def test_one_whose_work_does_not_end_is_not_waited_for_long(monkeypatch):
    monkeypatch.setattr(pool_member, "LEAVE_SECONDS", 0.01)
    go_on = threading.Event()
    member = Member(Formula("stuck"), Tally(), Reports(), threaded=True)
    thread = thread_of("stuck")
    member.give("first", lambda device: go_on.wait(SOON))
    member.leave()
    assert thread.is_alive()
    go_on.set()
    thread.join(SOON)
    assert not thread.is_alive()
