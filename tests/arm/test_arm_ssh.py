"""bench --ssh: a network timed on a board that has no TVM, through a real sshd, under QEMU."""

import json
import os
import threading
from pathlib import Path

import numpy as np
import pytest

import mpcompile as mp
from mpcompile.cli import main
from mpcompile.compiler.c_export.runner import build_runner, exported
from mpcompile.errors import DeviceLost
from mpcompile.remote import ssh
from mpcompile.remote.ssh import RemoteProgram
from tests.arm import sshd

DATA = Path(__file__).parents[1] / "data"
MODEL = DATA / "brevitas_residual_w3a4.onnx"
BOARD_32, BOARD_64 = "qemu-arm-static -cpu cortex-a15", "qemu-aarch64-static -cpu cortex-a53"
CPUS = len(os.sched_getaffinity(0))
"""Of the emulated board, too."""


def runners_outputs(model: Path, folder: Path) -> str:
    """FNV-1a of what the x86 bundle makes of the numbers that runner.c makes up."""
    mp.compile(model, "x86-64-v2", folder / "here.mpc")
    with mp.open_bundle(folder / "here.mpc", threads=1) as bundle:
        (port,) = bundle.inputs
        noise, values = 1, []
        for _ in range(int(np.prod(port.shape))):
            noise = (noise * 1664525 + 1013904223) % 2**32
            values.append((noise >> 8) / 8388608 - 1)
        found = bundle.run(np.float32(values).reshape(port.shape))
    digest = 14695981039346656037
    for byte in found.tobytes():
        digest = (digest ^ byte) * 1099511628211 % 2**64
    return f"{digest:016x}"


@pytest.mark.parametrize(
    "target, emulator, threads",
    [pytest.param("rpi4b-32", BOARD_32, 1, marks=pytest.mark.quick), ("rpi3b-32", BOARD_32, 3), ("rpi3b", BOARD_64, 2)],
)
def test_a_model(target, emulator, threads, tmp_path, capsys):
    threads = min(threads, CPUS)
    with sshd.board(tmp_path, emulator) as board:
        code = main(
            [
                "bench",
                str(MODEL),
                "--target",
                target,
                "--threads",
                str(threads),
                "--rounds",
                "3",
                "--json",
                str(tmp_path / "b.json"),
                *board.words,
            ]
        )
        printed = capsys.readouterr()
        assert code == 0, printed.err
        assert not board.left()
    found = json.loads((tmp_path / "b.json").read_text())
    assert found["threads"] == threads and found["variant"] == target and found["device"] == board.host
    timing = found["timings"][MODEL.name]
    # Good samples may be more than the rounds asked for: some count only when the reference's best is known better.
    assert 0 < timing["low"] <= timing["seconds"] <= timing["high"] and timing["samples"] >= 3
    assert timing["samples"] + timing["repeated"] == found["rounds"]
    assert found["outputs"] == runners_outputs(MODEL, tmp_path)
    assert "median" in printed.out and target in printed.out


def test_a_folder_and_a_cpu_that_lacks_an_instruction(tmp_path, capsys):
    made = mp.export_c(MODEL, "rpi5", tmp_path / "net_c")
    with sshd.board(tmp_path, BOARD_64) as board:
        assert main(["bench", str(made.folder), *board.words]) == 4
        (line,) = capsys.readouterr().err.splitlines()
        assert board.host in line and "lacks an instruction" in line
        assert not board.left()


def test_more_threads_than_the_board_has_cpus(tmp_path, capsys):
    """Refused as a bundle's run is there, before anything is timed."""
    made = mp.export_c(MODEL, "rpi4b-32", tmp_path / "net_c")
    with sshd.board(tmp_path, BOARD_32) as board:
        assert main(["bench", str(made.folder), "--threads", str(CPUS + 1), *board.words]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert line == f"mpcompile: {board.host}: {CPUS + 1} threads asked for, but there are {CPUS} CPUs for them"
        assert not board.left()


def test_a_board_of_another_kind(tmp_path, capsys):
    """A 32-bit program on a machine that has only 64-bit ones: what its kernel says, in one line."""
    with sshd.board(tmp_path, "") as board:
        assert main(["bench", str(MODEL), "--target", "rpi4b-32", *board.words]) == 4
        (line,) = capsys.readouterr().err.splitlines()
        assert "cannot run the program" in line and "format" in line.lower()
        assert not board.left()


def test_no_way_to_the_board(tmp_path, capsys):
    with sshd.board(tmp_path, BOARD_32) as board:
        words = board.words
    assert main(["bench", str(MODEL), "--target", "rpi4b-32", *words]) == 4
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"mpcompile: ssh to {board.host}: ") and "refused" in line


def test_a_connection_that_breaks(tmp_path):
    """In the middle of a measurement: one error, and the board cleans up by itself."""
    made = mp.export_c(MODEL, "rpi4b-32", tmp_path / "net_c")
    program = build_runner(exported(made.folder), tmp_path / "runner")
    threads = min(2, CPUS)
    with (
        sshd.board(tmp_path, BOARD_32) as board,
        RemoteProgram(board.host, program, [str(threads)], board.options) as there,
    ):
        assert there.about["threads"] == threads and there.timer("run").seconds(2) > 0
        assert len(list(board.tmp.iterdir())) == 1
        threading.Timer(1.0, board.cut).start()
        with pytest.raises(DeviceLost, match="ssh to "):
            while True:
                there.timer("run").seconds(20)
        assert not board.left()


def test_a_program_that_stands_still(tmp_path, monkeypatch):
    """The connection lives on, and ssh sees nothing wrong: what was asked is given up after a time."""
    made = mp.export_c(MODEL, "rpi4b-32", tmp_path / "net_c")
    program = build_runner(exported(made.folder), tmp_path / "runner")
    with sshd.board(tmp_path, BOARD_32) as board, RemoteProgram(board.host, program, ["1"], board.options) as there:
        timer = there.timer("run")
        assert timer.seconds(2) > 0
        monkeypatch.setattr(ssh, "ANSWER_SECONDS", 1.0)
        monkeypatch.setattr(ssh, "ANSWER_TIMES", 0.0)
        with board.stopped():
            with pytest.raises(DeviceLost, match=f"^{board.host}: the program there has answered nothing for 1 s$"):
                timer.seconds(1)
            there.close()
        assert not board.left()
