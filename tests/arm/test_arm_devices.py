"""Emulated boards as devices: hosts run, time, tune and search on them over TVM's RPC, and get what x86 and the reference
compute. Times under QEMU mean nothing; that they come from the boards is what counts."""

import json
import threading
from functools import cache
from pathlib import Path

import numpy as np
import pytest

import mpcompile as mp
from mpcompile.api.verify import fused
from mpcompile.cli import main
from mpcompile.errors import TargetError
from mpcompile.reference.run import run as reference
from tests.arm.device import emulated_device, kill
from tests.latency.networks import branching
from tests.patience import PATIENCE, until
from tests.remote.served import Farm
from tests.search.small_config import small_config

MODEL = Path(__file__).parents[1] / "data" / "brevitas_residual_w3a4.onnx"


@pytest.fixture
def tracker():
    with Farm() as farm:
        yield farm.tracker


@cache
def expected() -> tuple[np.ndarray, np.ndarray]:
    """A sample, and the exact reference's output."""
    graph = fused(MODEL)
    (name,), (output,) = graph.inputs, graph.outputs
    x = np.random.default_rng(7).normal(0, 1.5, graph.types[name].shape).astype(np.float32)
    return x, reference(graph, {name: x})[output]


def command(*words) -> int:
    return main([str(w) for w in words])


@pytest.mark.quick
def test_run_equals_the_reference_and_refusals_leave_the_device(tracker, tmp_path, capsys):
    """A bundle with dot products is refused by HWCAP, in one line; then the same device runs its own."""
    x, y = expected()
    np.savez(tmp_path / "x.npz", x)
    for target in ("rpi4b", "rpi5"):
        mp.compile(MODEL, target=target, output=tmp_path / f"{target}.mpc")
    device = ["--tracker", tracker, "--key", "a72"]
    with emulated_device("cortex-a72", tracker, "a72", tmp_path / "a72"):
        capsys.readouterr()
        words = ["--input", tmp_path / "x.npz", "--output", tmp_path / "y.npz", *device]
        assert command("run", tmp_path / "rpi5.mpc", *words) == 4
        (line,) = capsys.readouterr().err.splitlines()
        assert "asimddp" in line and not (tmp_path / "y.npz").exists()
        assert command("run", tmp_path / "rpi4b.mpc", *words) == 0, capsys.readouterr().err
        (there,) = np.load(tmp_path / "y.npz").values()
        assert there.tobytes() == y.tobytes()
        assert command("bench", tmp_path / "rpi4b.mpc", "--rounds", 1, "--json", tmp_path / "b.json", *device) == 0
        assert json.loads((tmp_path / "b.json").read_text())["timings"]["rpi4b.mpc"]["seconds"] > 0


def test_a_table_from_two_boards_one_of_which_is_lost(tracker, tmp_path, capsys):
    """Every cell is there although one device ends in the middle, and a bundle's layers are timed in their places."""
    model = branching(tmp_path / "m.onnx")
    device = ["--tracker", tracker, "--key", "pi"]
    table = tmp_path / "LUT.json"
    cells = Path(f"{table}.cells")
    with (
        emulated_device("cortex-a53", tracker, "pi", tmp_path / "one") as first,
        emulated_device("cortex-a53", tracker, "pi", tmp_path / "two"),
    ):
        over = threading.Event()

        def lose() -> None:
            until(lambda: over.is_set() or (cells.exists() and len(cells.read_text().splitlines()) > 3), PATIENCE)
            kill(first)

        thread = threading.Thread(target=lose)
        thread.start()
        code = command(
            "profile",
            model,
            "--target",
            "rpi3b",
            "--bits",
            "w12a2",
            "-o",
            table,
            "--threads",
            1,
            "--rounds",
            1,
            *device,
        )
        over.set()
        thread.join()
        printed = capsys.readouterr()
        assert code == 0, printed.err
        assert "lost once" in printed.out and printed.out.count("pi at 127.0.0.1") == 2
        assert (
            command(
                "profile",
                model,
                "--target",
                "rpi3b",
                "--threads",
                1,
                "--rounds",
                1,
                "--json",
                tmp_path / "p.json",
                *device,
            )
            == 0
        ), capsys.readouterr().err
    found = json.loads(table.read_text())
    assert len(cells.read_text().splitlines()) > 8 and found["layers"]
    assert first.poll() is not None


def test_tune_on_a_board(tracker, tmp_path, capsys):
    """Schedules that a board measured compile to the same numbers."""
    x, y = expected()
    with emulated_device("cortex-a76", tracker, "pi5", tmp_path / "pi5"):
        code = command(
            "tune",
            MODEL,
            "--target",
            "rpi5",
            "--trials",
            4,
            "-o",
            tmp_path / "records",
            "--tracker",
            tracker,
            "--key",
            "pi5",
        )
        assert code == 0, capsys.readouterr().err
        records = list((tmp_path / "records").glob("*.json"))
        assert records
        np.savez(tmp_path / "x.npz", x)
        mp.compile(MODEL, target="rpi5", output=tmp_path / "m.mpc", records=tmp_path / "records")
        assert (
            command(
                "run",
                tmp_path / "m.mpc",
                "--input",
                tmp_path / "x.npz",
                "--output",
                tmp_path / "y.npz",
                "--tracker",
                tracker,
                "--key",
                "pi5",
            )
            == 0
        ), capsys.readouterr().err
        (there,) = np.load(tmp_path / "y.npz").values()
        assert there.tobytes() == y.tobytes()


def test_search_on_a_board(tracker, tmp_path, capsys):
    """The objective's table and every network's time are the board's; the bundles are for it, and exact on it."""
    (tmp_path / "search.toml").write_text(
        small_config(
            data={"side": 12, "train": 64, "test": 32},
            objective={"targets": ["50 %"]},
            baselines={"uniform": ["w1a2", "w8a8"], "float": False, "int8": False},
            measure={"target": "rpi4b"},
        )
    )
    with emulated_device("cortex-a72", tracker, "pi4", tmp_path / "pi4"):
        code = command("search", tmp_path / "search.toml", "-o", tmp_path / "run", "--tracker", tracker, "--key", "pi4")
        assert code == 0, capsys.readouterr().err
    report = json.loads((tmp_path / "run" / "report.json").read_text())
    assert len(report["points"]) == 3 and report["run"]["machine"]["devices"].startswith("pi4 at ")
    assert all(d["seconds"] > 0 and d["verify"]["equal"] for d in report["derived"].values())
    for point in report["points"]:
        bundle = tmp_path / "run" / "points" / point["name"] / "model.mpc"
        with pytest.raises(TargetError, match="built for aarch64"):
            mp.open_bundle(bundle)
