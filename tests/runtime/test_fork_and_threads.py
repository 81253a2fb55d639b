"""Processes that fork and threads that come and go: whoever runs a bundle gets its numbers, and leaves nothing behind."""

import pytest

from mpcompile.targets import cpu
from tests.runtime.test_tvm_runtime import fresh

pytestmark = pytest.mark.skipif(len(cpu.allowed()) < 2, reason="needs two CPUs: kernels on two threads")

SETUP = """
import os, sys, threading, time
import numpy as np
import mpcompile as mp

x = np.random.default_rng(0).normal(0, 1, (4, 8, 8)).astype(np.float32)
bundle = mp.open_bundle(sys.argv[1], threads=2)

def in_child(work, seconds=30):
    "Whether a forked child did it; one that hangs is killed."
    pid = os.fork()
    if not pid:
        try:
            os._exit(0 if work() else 1)
        except BaseException as error:
            print(error, file=sys.stderr)
            os._exit(2)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.01)
    os.kill(pid, 9)
    os.waitpid(pid, 0)
    return "hangs"
"""


def told(bundle_path, code: str) -> str:
    return fresh(SETUP + code, str(bundle_path))


def test_a_forked_child_runs_what_its_parent_opened_and_what_it_opens(bundle_path):
    code = """
first = bundle.run(x)

def again():
    same = all((bundle.run(x) == first).all() for _ in range(20))
    with mp.open_bundle(sys.argv[1], threads=2) as other, mp.open_bundle(sys.argv[1], threads=1) as single:
        same &= bool((other.run(x) == first).all()) and bool((single.run(x) == first).all())
        other.bench(0.01)
    return same and in_child(lambda: (bundle.run(x) == first).all()) == 0

print([in_child(again) for _ in range(3)], (bundle.run(x) == first).all())
"""
    assert told(bundle_path, code) == "[0, 0, 0] True"


def test_a_child_that_is_forked_while_another_thread_runs(bundle_path):
    code = """
first, stop = bundle.run(x), threading.Event()

def busy():
    while not stop.is_set():
        bundle.run(x)

thread = threading.Thread(target=busy)
thread.start()
found = [in_child(lambda: (bundle.run(x) == first).all()) for _ in range(20)]
stop.set()
thread.join()
print(set(found))
"""
    assert told(bundle_path, code) == "{0}"


def test_threads_that_come_and_go_leave_none_behind(bundle_path):
    code = """
first, wrong = bundle.run(x), []

def one():
    if not (bundle.run(x) == first).all():
        wrong.append(1)

def again():
    for _ in range(50):
        pair = [threading.Thread(target=one) for _ in range(2)]
        [t.start() for t in pair]
        [t.join() for t in pair]
    time.sleep(0.2)  # the system takes a moment to bury a thread that was joined
    return len(os.listdir("/proc/self/task"))

again()
print(again() == again() == again(), wrong)
"""
    assert told(bundle_path, code) == "True []"


def test_two_bundles_on_two_threads_each_at_once(bundle_path):
    code = """
first, wrong = bundle.run(x), []

def many():
    with mp.open_bundle(sys.argv[1], threads=2) as mine:
        for _ in range(200):
            if not (mine.run(x) == first).all():
                wrong.append(1)

threads = [threading.Thread(target=many) for _ in range(4)]
[t.start() for t in threads]
[t.join() for t in threads]
print(wrong)
"""
    assert told(bundle_path, code) == "[]"


def test_what_is_raised_reaches_whoever_called_and_the_helper_goes_on(bundle_path):
    code = """
from mpcompile.runtime import threads

first, said = bundle.run(x), []

def odd(number):
    raise ValueError(f"{number} in {threading.current_thread().name}")

def wrong():
    for number in range(3):
        try:
            threads.call(2, odd, number)
        except ValueError as error:
            said.append(str(error))
    said.append((bundle.run(x) == first).all())

thread = threading.Thread(target=wrong)
thread.start()
thread.join()
print(said == [f"{number} in mpcompile-kernels" for number in range(3)] + [True])
"""
    assert told(bundle_path, code) == "True"


def test_an_interrupt_waits_for_the_kernels_that_run(bundle_path):
    """In a forked child the main thread hands over: after Ctrl-C, no run writes where the last one still does."""
    code = """
import signal
from mpcompile.runtime import threads

bundle.run(x)

def child():
    ended = []

    def slow():
        time.sleep(1)
        ended.append(1)

    threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT)).start()
    try:
        threads.call(2, slow)
    except KeyboardInterrupt:
        return ended == [1]
    return False

print(in_child(child))
"""
    assert told(bundle_path, code) == "0"
