"""Devices that are killed or stopped in the middle of their work: the host is told what is known, in bounded time, and
others do the work."""

import errno
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
from contextlib import closing
from pathlib import Path

import pytest

from mpcompile.errors import DeviceLost
from mpcompile.locks import exclusive_folder
from mpcompile.remote.connection import ANSWER_SECONDS
from mpcompile.remote.pool import open_pool
from mpcompile.remote.sandbox import SandboxedDevice
from mpcompile.remote.tracker import Key, devices
from mpcompile.runtime.server import process, serve
from tests.patience import SOON, until
from tests.remote.processes import Process, gone, kernel, library
from tests.remote.served import Farm

LONG = {"stirred": 0, "rounds": 1000000, "min_time": 1e-5}
TIMEOUTS = (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO)


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    return {"k": kernel(library(tmp_path_factory.mktemp("kernels")), "good")}


def hurry(device) -> None:
    """Makes the device's connection give up after a second, and not only when users would."""
    assert device._sockets
    for connection in device._sockets:
        assert connection.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        for option in TIMEOUTS:
            seconds = struct.unpack("ll", connection.getsockopt(socket.SOL_SOCKET, option, 16))
            assert seconds == (ANSWER_SECONDS, 0)
            connection.setsockopt(socket.SOL_SOCKET, option, struct.pack("ll", 1, 0))


def lost_by(call) -> DeviceLost:
    """What `call()` raises; a call that hangs fails the test, and no more."""
    ended = []

    def work():
        try:
            ended.append(call())
        except BaseException as error:
            ended.append(error)

    threading.Thread(target=work, daemon=True).start()
    until(lambda: ended)
    assert isinstance(ended[0], DeviceLost), ended
    return ended[0]


@pytest.fixture(scope="module")
def sandboxed():
    with closing(SandboxedDevice()) as found:
        yield found


def test_a_session_that_someone_kills_is_not_said_to_have_taken_memory(sandboxed, good):
    def kill(done: int, total: int) -> None:
        os.kill(sandboxed._server._process.pid, signal.SIGKILL)

    error = lost_by(lambda: sandboxed.time_kernels(good, 1, **LONG, progress=kill))
    assert error.cause == "killed" and error.by_work
    assert "was killed (SIGKILL), by the system for lack of memory or by someone" in str(error)


def test_what_is_broken_off_here_is_broken_off_there(sandboxed, good):
    """Else the next answer would be that of the work before."""

    def interrupted(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        sandboxed.time_kernels(good, 1, stirred=0, rounds=100, min_time=0.02, progress=interrupted)
    assert sandboxed.reference() > 0


def test_a_device_that_has_no_memory_for_another_session_waits_for_it(sandboxed, monkeypatch):
    start, failures, lines = process.subprocess.Popen, [], []

    def without_memory(*arguments, **named):
        if len(failures) < 2:
            failures.append(named["cwd"])
            raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))
        return start(*arguments, **named)

    assert sandboxed.reference() > 0
    monkeypatch.setattr(sandboxed._server, "_log", lines.append)
    monkeypatch.setattr(serve, "RETRY", 0.01)
    monkeypatch.setattr(process.subprocess, "Popen", without_memory)
    sandboxed._session.close()
    assert sandboxed.reference() > 0
    assert lines[1:3] == ["the process that runs kernels does not start here: Cannot allocate memory; trying again"] * 2
    assert not any(folder.exists() for folder in failures)


@pytest.fixture
def untracked():
    """A device without a tracker."""
    found = Process("serve", "--key", "untracked", "--port", "0")
    yield found
    found.end(signal.SIGKILL)


def test_a_session_that_is_stopped_is_noticed(untracked, good):
    """SIGSTOP: the connection stays, and nobody answers. The device is free again at once."""
    device = until(Key(untracked.address, "untracked").take, unless=untracked.over)
    sessions = untracked.descendants()

    def stop(done: int, total: int) -> None:
        hurry(device)
        for pid in sessions:
            os.kill(pid, signal.SIGSTOP)

    error = lost_by(lambda: device.time_kernels(good, 1, **LONG, progress=stop))
    assert str(error) == f"untracked at {untracked.address}: it has answered nothing for {ANSWER_SECONDS} s"
    assert error.cause == "connection" and not error.by_work
    untracked.said("the client went away in the middle of its work")
    until(lambda: gone(sessions))
    until(Key(untracked.address, "untracked").take, unless=untracked.over).close()


def test_others_do_the_work_of_a_device_that_is_stopped():
    """All of it; it is free again when it goes on."""
    lines, told, stopped = [], {}, []
    with Farm() as farm:
        served = [farm.serve(), farm.serve()]
        farm.wait(2)

        def work(device, item) -> float:
            if item == 2 and not stopped:
                (victim,) = [s for s in served if device.name.endswith(s.address)]
                stopped.append(victim)
                hurry(device)
                for pid in [*victim.descendants(), victim.process.pid]:
                    os.kill(pid, signal.SIGSTOP)
            return device.reference()

        with open_pool(farm.tracker, farm.key, warn=lines.append) as pool:
            pool.map(work, range(8), lambda item, seconds: told.setdefault(item, []).append(seconds))
        (victim,) = stopped
        name = f"{farm.key} at {victim.address}"
        assert sorted(told) == list(range(8)) and all(found[-1] > 0 for found in told.values())
        assert pool.tallies[name].lost == 1
        assert [line for line in lines if line.startswith(f"{name}: it has answered nothing for ")]
        os.kill(victim.process.pid, signal.SIGCONT)
        victim.said("session of 127.0.0.1 ended")
        until(lambda: all(d.told["free"] for d in devices(farm.tracker)), unless=victim.over)


def test_folders_of_devices_that_were_killed_are_removed_by_the_next(monkeypatch, tmp_path):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(process.tempfile, "tempdir", None)
    first = Process("serve", "--key", "first", "--port", "0")
    until(lambda: first.address and first.descendants(), unless=first.over)
    pids = [*first.descendants(), first.process.pid]
    for number in (signal.SIGSTOP, signal.SIGKILL):  # stopped, it cannot tidy up between the two
        for pid in pids:
            os.kill(pid, number)
    first.end()
    (left,) = tmp_path.glob("mpcompile-session-*")
    process.sweep()
    assert left.exists()  # it may just have been made
    os.utime(left, (1, 1))
    with exclusive_folder(left):
        process.sweep()
        assert left.exists()  # its server lives
    second = Process("serve", "--key", "second", "--port", "0")
    try:
        until(lambda: not left.exists(), unless=second.over)
        (its,) = until(lambda: list(tmp_path.glob("mpcompile-session-*")), unless=second.over)
        os.utime(its, (1, 1))
        process.sweep()
        assert its.exists()
    finally:
        second.end()


def test_a_session_that_both_ends_leave_removes_its_folder(tmp_path):
    """Two threads notice; the second must not end the process while the first still removes files."""
    code = (
        "import pathlib, shutil, sys, threading, time\n"
        "from mpcompile.runtime.server import session\n"
        "remove, began = shutil.rmtree, threading.Event()\n"
        "def slowly(folder, ignore_errors):\n"
        "    if not began.is_set():\n"
        "        began.set()\n"
        "        time.sleep(0.5)\n"
        "        remove(folder)\n"
        "shutil.rmtree = slowly\n"
        "threading.Thread(target=session._leave, args=(pathlib.Path(sys.argv[1]),)).start()\n"
        "began.wait()\n"
        "session._leave(pathlib.Path(sys.argv[1]))\n"
    )
    folder = tmp_path / "session"
    folder.mkdir()
    subprocess.run([sys.executable, "-c", code, folder], cwd=Path(__file__).parents[2], timeout=SOON)
    assert not folder.exists()
