"""What devices cannot do is said before anything is built for them."""

from dataclasses import replace
from importlib import metadata

import pytest

from mpcompile.api.search import device_of
from mpcompile.cli import main
from mpcompile.errors import MissingDependency, TargetError, UsageError
from mpcompile.remote import pool as pools
from mpcompile.remote.fit import board_for, threads_on
from mpcompile.remote.pool import DevicePool
from mpcompile.runtime.device import About
from mpcompile.search.config import BaselineOptions, Config, MeasureOptions
from mpcompile.targets import cpu
from tests.remote.simulated import ABOUT, Formula, Shelf
from tests.runtime.small_bundle import small_variant, write_small


def test_a_board_must_fit_the_devices():
    pi = {"arch": "aarch64", "features": ("asimd", "fp"), "cpu": "Cortex-A72"}
    with DevicePool(source=Shelf(Formula("pi", **pi))) as pool:
        assert board_for("aarch64", pool).name == "aarch64"
        with pytest.raises(UsageError, match="the shelf is another .aarch64, Cortex-A72.: name its board; .*aarch64"):
            board_for("native", pool)
        with pytest.raises(TargetError, match="the shelf cannot run .* x86-64-v3: it is aarch64"):
            board_for("x86-64-v3", pool)
        with pytest.raises(TargetError, match="cannot run .* rpi5: it .Cortex-A72. lacks asimddp"):
            board_for("rpi5", pool)


def test_threads_are_the_devices_cores_unless_said():
    about = replace(ABOUT, cores=4, cpus=8)
    assert threads_on(about, None) == 4 and threads_on(about, 8) == 8
    for wrong, says in ((9, "9 threads asked for, but a formula has 8"), (0, "from 1 up, not 0"), (True, "from 1 up")):
        with pytest.raises(UsageError, match=says):
            threads_on(about, wrong)


def test_baselines_of_onnx_runtime_need_it_there():
    config = Config(baselines=BaselineOptions(int8=True), measure=MeasureOptions(target="x86-64-v2"))
    with (
        DevicePool([Formula("box")]) as pool,
        pytest.raises(MissingDependency, match="baselines.int8 .* and box has none"),
    ):
        device_of(config, pool)


def test_nothing_is_timed_by_onnx_runtime_where_there_is_none(monkeypatch, tmp_path, capsys):
    def without(name: str) -> str:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", without)
    assert About.here().onnxruntime == ""
    board = Formula("box", arch=cpu.arch(), onnxruntime="")  # it cannot measure anything: nothing is asked of it
    monkeypatch.setattr(pools, "open_pool", lambda *_, **__: DevicePool(source=Shelf(board)))
    bundle, other = write_small(tmp_path / "m.mpc", small_variant(b"no code")), tmp_path / "other.onnx"
    other.touch()
    assert main(["bench", str(bundle), "--vs-onnx", str(other), "--tracker", "h:1", "--key", "box"]) == 5
    said = capsys.readouterr()
    assert said.err == (
        "mpcompile: --vs-onnx is timed by ONNX Runtime on the device, and the shelf has none; leave it "
        "out, or there: pip install onnxruntime==1.31.1\n"
    )
    assert not said.out and board.closed
