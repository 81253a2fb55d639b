"""A served device, in real processes: it gives what this machine gives, and outlives whatever is asked of it."""

import json
import signal
import socket
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from mpcompile import __version__, cli
from mpcompile.errors import DeviceLost, ModelError, TargetError
from mpcompile.remote.sandbox import SandboxedDevice
from mpcompile.remote.tracker import Key, devices
from mpcompile.runtime.device import NETWORK, About, LocalDevice
from mpcompile.runtime.server.limits import Limits
from tests.remote.processes import Process, gone, kernel, library, until
from tests.runtime.small_bundle import SHAPE, small_library, small_variant, write_small

QUICK = {"stirred": 0, "rounds": 3, "min_time": 1e-5}


@pytest.fixture(scope="module")
def bad(tmp_path_factory) -> bytes:
    return library(tmp_path_factory.mktemp("bad"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("bundle")


@pytest.fixture(scope="module")
def library_file(folder) -> Path:
    small_library(folder)
    return folder / "lib.so"


@pytest.fixture(scope="module")
def bundle(folder, library_file) -> Path:
    return write_small(folder / "small.mpc", small_variant(library_file.read_bytes()))


@pytest.fixture(scope="module")
def tracker():
    process = Process("tracker", "--port", "0")
    yield process
    process.end()


@pytest.fixture(scope="module")
def served(tracker):
    process = Process("serve", "--tracker", tracker.address, "--key", "board", "--port", "0", "--max-memory", "800")
    process.said("serving board")
    until(lambda: devices(tracker.address), unless=process.over)
    yield process
    pids = process.descendants()
    process.end()
    until(lambda: gone(pids))


@pytest.fixture
def device(tracker, served):
    """A session, when the device is free."""
    found = until(Key(tracker.address, "board").take, unless=served.over)
    yield found
    found.close()


def free_again(tracker, served) -> bool:
    return until(lambda: devices(tracker.address)[0].told["free"], unless=served.over)


# -- what it does ----------------------------------------------------------------------------------------
def test_it_gives_what_this_machine_gives(device, bundle, bad, tmp_path):
    here = LocalDevice()
    assert device.about == About.here() and device.about.mpcompile == __version__
    x = {"x": np.random.default_rng(0).standard_normal((3, *SHAPE), np.float32)}
    assert np.array_equal(device.run(bundle, x, 1)["z"], here.run(bundle, x, 1)["z"])
    one = {"x": x["x"][:1]}
    ours, theirs = here.trace(bundle, one, 1), device.trace(bundle, one, 1)
    assert {t: list(b) for t, b in ours.items()} == {t: list(b) for t, b in theirs.items()}
    assert all(np.array_equal(ours[t][key], a) for t, found in theirs.items() for key, a in found.items())

    seen = []
    raced = device.race({"a": bundle, "b": bundle}, 1, rounds=3, min_time=1e-4, progress=lambda *p: seen.append(p))
    assert list(raced.timings) == ["a", "b"] and all(t.seconds > 0 and t.samples >= 3 for t in raced.timings.values())
    assert all(0 <= done <= total == 3 for done, total in seen)
    assert set(device.profile(bundle, 1, **QUICK).timings) == {NETWORK, "first", "second"}
    timed = device.time_kernels({"k": kernel(bad, "good"), "l": kernel(bad, "good")}, 1, **QUICK)
    assert set(timed.timings) == {"k", "l"} and timed.reference_best > 0 and device.reference() > 0
    assert device.state().clock >= 0

    # what goes wrong with a file is told as here, by the name that it has here
    (tmp_path / "cut.mpc").write_bytes(bundle.read_bytes()[:-99])
    with pytest.raises(ModelError) as error:
        device.run(tmp_path / "cut.mpc", x, 1)
    assert f"{tmp_path}/cut.mpc is not a bundle" in str(error.value) and str(error.value).startswith("board at ")

    # code for a CPU that has more than this one is never loaded: it would end the session
    with pytest.raises(TargetError, match="wide needs avx4096, asimd9, which this CPU .* lacks") as error:
        device.time_kernels(
            {"good": kernel(bad, "good"), "wide": kernel(bad, "segfault", ("avx4096", "asimd9"))}, 1, **QUICK
        )
    assert not isinstance(error.value, DeviceLost) and device.reference() > 0


def test_who_is_there(tracker, served, device, tmp_path, capsys):
    until(lambda: not devices(tracker.address)[0].told["free"], unless=served.over)
    assert cli.main(["devices", "--tracker", tracker.address, "--json", str(tmp_path / "d.json")]) == 0
    (told,) = json.loads((tmp_path / "d.json").read_text())["devices"]
    assert told["key"] == "board" and About.from_json(told["about"]) == device.about and not told["free"]
    assert "busy for" in capsys.readouterr().out
    assert Key(tracker.address, "board").take() is None
    with pytest.raises(TargetError, match=r"no device of key bord: it has board"):
        Key(tracker.address, "bord").take()
    assert cli.main(["devices", "--tracker", tracker.address, "--key", "bord"]) == 4


def test_no_tracker_there(capsys):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        assert cli.main(["devices", "--tracker", f"127.0.0.1:{taken.getsockname()[1]}"]) == 4
    (line,) = capsys.readouterr().err.splitlines()
    assert "no tracker answers at 127.0.0.1" in line
    for advice in ("no device", "`mpcompile tracker`", "`mpcompile serve`", "the way to it is cut"):
        assert advice in line
    assert cli.main(["devices", "--tracker", "127.0.0.1:port"]) == 2
    assert cli.main(["serve", "--key", "a b"]) == 2
    assert cli.main(["serve", "--key", "k", "--max-seconds", "0"]) == 2
    assert cli.main(["serve", "--key", "k", "--max-idle", "nan"]) == 2


# -- faults ----------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "function, cause, words",
    [
        ("segfault", "crash", r"crashed \(SIGSEGV\)"),
        ("leave", "crash", "ended with status 0"),
        ("hang", "time", "ran longer than 1 s"),
        ("grow", "memory", r"took \d+ MiB of memory, more than 800 MiB"),
    ],
)
def test_a_kernel_that_misbehaves(tracker, served, device, bad, function, cause, words):
    device.limit = 1.0 if function == "hang" else None
    with pytest.raises(DeviceLost, match=words) as error:
        device.time_kernels({"good": kernel(bad, "good"), "bad": kernel(bad, function)}, 1, **QUICK)
    assert error.value.cause == cause and error.value.by_work
    with pytest.raises(DeviceLost):
        device.reference()
    served.said(words)
    assert free_again(tracker, served)


def test_a_host_that_is_killed(tracker, served, bad, tmp_path):
    (tmp_path / "bad.so").write_bytes(bad)
    code = (
        "import sys, pathlib; from mpcompile.remote.tracker import Key; from tests.remote.processes import *\n"
        "device = until(Key(sys.argv[1], 'board').take)\n"
        "device.time_kernels({'k': kernel(pathlib.Path(sys.argv[2]).read_bytes(), 'good')}, 1, stirred=0,"
        " rounds=1000000, min_time=1e-5, progress=lambda *p: print('begun', flush=True))"
    )
    host = subprocess.Popen(
        [sys.executable, "-c", code, tracker.address, tmp_path / "bad.so"],
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parents[2],
    )
    assert host.stdout.readline() == b"begun\n"
    host.kill()
    host.wait()
    host.stdout.close()
    served.said("the client went away in the middle of its work")
    assert free_again(tracker, served)


def test_a_host_that_asks_for_nothing():
    lines = []
    with closing(SandboxedDevice(Limits(idle=2.0))) as device:
        device._server._log = lines.append
        assert device.reference() > 0
        until(lambda: any("asked for nothing" in line for line in lines))
        with pytest.raises(DeviceLost, match="was asked for nothing in 2 s") as error:
            device.reference()
        assert error.value.cause == "idle" and not error.value.by_work
        assert device.reference() > 0


def test_a_tracker_that_comes_back(served, tracker):
    """Killed and started again on the same port, it knows the device within seconds."""
    host, port = tracker.address.split(":")
    served.said(f"tracker {tracker.address}: registered$")
    tracker.end(signal.SIGKILL)
    served.said("trying again until it is back")
    tracker.__init__("tracker", "--host", host, "--port", port)
    served.said("registered again")
    assert free_again(tracker, served)


# -- TVM's own tools -------------------------------------------------------------------------------------
def test_a_stock_client(tracker, served, library_file):
    import tvm
    from tvm import rpc

    free_again(tracker, served)
    host, port = tracker.address.split(":")
    session = rpc.connect_tracker(host, int(port)).request("board", session_timeout=60)
    session.upload(library_file)
    module, device = session.load_module("lib.so"), session.cpu()
    x = tvm.runtime.tensor(np.arange(256, dtype=np.float32).reshape(SHAPE), device)
    z = tvm.runtime.tensor(np.zeros(SHAPE, np.float32), device)
    assert module.time_evaluator("square", device, number=2)(x, z).mean > 0
    assert np.array_equal(z.numpy(), x.numpy() ** 2)


def test_a_stock_server_is_refused(tracker, served, monkeypatch, tmp_path):
    from tvm.rpc.server import Server

    monkeypatch.setenv("TMPDIR", str(tmp_path))  # it leaves its folder there when it is terminated
    host, port = tracker.address.split(":")
    stock = Server("127.0.0.1", 9400, 9500, tracker_addr=(host, int(port)), key="stock", silent=True)
    try:
        until(lambda: "stock" in [d.key for d in devices(tracker.address)])
        with pytest.raises(TargetError, match="is TVM's own RPC server, not mpcompile's: start `mpcompile serve`"):
            until(Key(tracker.address, "stock").take)
    finally:
        stock.terminate()


# -- the end ---------------------------------------------------------------------------------------------
@pytest.fixture
def untracked():
    """A device without a tracker, of the test's own."""
    process = Process("serve", "--key", "untracked", "--port", "0")
    yield process
    process.end()


def test_without_a_tracker_and_interrupted(untracked):
    """A host names the device itself; Ctrl-C in the middle of a measurement leaves no process, no port, no file."""
    address = untracked.address
    with pytest.raises(TargetError, match="is no tracker but a device of key untracked, not along"):
        Key(address, "along").take()
    device = until(Key(address, "untracked").take, unless=untracked.over)
    (listed,) = devices(address)
    assert (
        listed.key == "untracked" and not listed.told["free"] and About.from_json(listed.told["about"]) == device.about
    )
    assert Key(address, "untracked").take() is None
    pids = untracked.descendants()
    folders = [Path(f"/proc/{pid}/cwd").resolve() for pid in pids]
    assert folders and all("mpcompile-session-" in str(f) for f in folders)
    device._ask("start", json.dumps({"method": "reference", "arguments": {}, "seconds": None, "files": {}}))
    assert untracked.end(signal.SIGINT) == 130
    with pytest.raises(DeviceLost) as error:
        device.reference()
    assert error.value.cause == "server" and "the server was stopped" in str(error.value)
    assert gone(pids) and not any(f.exists() for f in folders)
    with socket.socket() as again:
        again.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        again.bind(("127.0.0.1", int(address.split(":")[1])))


def test_a_device_that_is_killed(untracked, bad):
    """SIGKILL in the middle of a measurement: the host hears of it at once, and no process stays."""
    device = until(Key(untracked.address, "untracked").take, unless=untracked.over)
    pids = untracked.descendants()

    def kill(done: int, total: int) -> None:
        if untracked.process.poll() is None:
            untracked.process.kill()

    with pytest.raises(DeviceLost) as error:
        device.time_kernels({"k": kernel(bad, "good")}, 1, stirred=0, rounds=1000000, min_time=1e-5, progress=kill)
    assert error.value.cause == "connection" and not error.value.by_work
    until(lambda: gone(pids))
