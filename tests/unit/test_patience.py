"""That waiting ends: with what was waited for, at once where it can no longer come, or at its limit."""

import time

import pytest

from tests.patience import until
from tests.remote.processes import Process


def test_what_is_there_is_given_although_nothing_more_can_come():
    assert until(lambda: "found", unless=lambda: "over") == "found"


def test_what_can_no_longer_come_is_not_waited_for():
    began, answers = time.monotonic(), iter([None, None, "the process ended"])
    with pytest.raises(AssertionError, match="the process ended"):
        until(lambda: None, patience=600, pause=0.01, unless=lambda: next(answers))
    assert time.monotonic() - began < 60


def test_the_limit_ends_what_hangs():
    with pytest.raises(AssertionError, match=r"not within 0.05 s"):
        until(lambda: None, patience=0.05, pause=0.01)


def test_a_command_that_ended_is_not_waited_for_and_what_it_said_is_told():
    process = Process("serve", "--key", "a b", "--port", "0")
    with pytest.raises(AssertionError, match="'serving' is not in what it said: .*ended with 2: .*key"):
        process.said("serving")
    assert process.over() and process.end() == 2
