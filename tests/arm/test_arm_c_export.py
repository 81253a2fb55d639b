"""Whole networks as C libraries, run under QEMU: the bytes that x86 computes, from programs that are strict about
alignment, workspace and errors."""

import subprocess
import tempfile
from functools import cache
from math import prod
from pathlib import Path

import numpy as np
import pytest

import mpcompile as mp
from benchmarks.networks import NETWORKS, Bits
from mpcompile.targets import load_target
from tests.arm.emulator import TOOLS, emulated_core, temporary
from tests.compile.test_c_export import CHECK, MODELS, reference
from tests.patience import PATIENCE

DATA = Path(__file__).parents[1] / "data"
BOARDS = ("rpi4b", "rpi5", "rpi4b-32")
"""Each has other instructions; rpi3b and its 32-bit system differ from them in tiles."""
WHOLE = ("resnet20", "mobilenet_v1")


@cache
def model(name: str) -> Path:
    """The file of a model of tests/data, or of a benchmark's network, small."""
    if name not in WHOLE:
        return DATA / f"{name}.onnx"
    path = temporary() / f"{name}.onnx"
    NETWORKS[name](Bits(1, 2) if name == "resnet20" else Bits(4, 4), size=32).save(path)
    return path


@cache
def sample(name: str) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """One sample of the model's inputs, and what the x86 bundle makes of it."""
    with tempfile.TemporaryDirectory() as folder:
        path = mp.compile(model(name), "x86-64-v3", Path(folder) / "m.mpc")
        with mp.open_bundle(path, threads=1) as bundle:
            return reference(bundle)


def build(name: str, board: str, folder: Path) -> Path:
    """test_c_export's program CHECK, linked for the board."""
    inputs, outputs = sample(name)
    made = mp.export_c(model(name), board, folder / "c", name="net")
    (folder / "check.c").write_text(CHECK.replace("SIZES", ", ".join(str(prod(a.shape)) for a in (*inputs, *outputs))))
    subprocess.run(
        [
            TOOLS[load_target(board).arch][0],
            "-std=c11",
            "-O1",
            "-static",
            "-Wall",
            "-Wextra",
            "-Werror",
            "-o",
            folder / "check",
            folder / "check.c",
            f"-I{made.folder}",
            made.folder / "libnet.a",
            "-lm",
        ],
        check=True,
    )
    return folder / "check"


def emulate(board: str, *words, core: str = "") -> subprocess.CompletedProcess:
    target = load_target(board)
    return subprocess.run(
        [TOOLS[target.arch][1], "-cpu", core or emulated_core(target), *map(str, words)],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )


@pytest.mark.parametrize("board", BOARDS)
@pytest.mark.parametrize("name", (pytest.param("resnet20", marks=pytest.mark.quick), "mobilenet_v1", *MODELS))
def test_the_same_bytes(name, board, tmp_path):
    inputs, outputs = sample(name)
    program = build(name, board, tmp_path)
    for i, x in enumerate(inputs):
        x.tofile(tmp_path / f"in{i}")
    done = emulate(
        board,
        program,
        *(tmp_path / f"in{i}" for i in range(len(inputs))),
        *(tmp_path / f"out{i}" for i in range(len(outputs))),
    )
    assert done.returncode == 0, done.stdout + done.stderr
    for i, wanted in enumerate(outputs):
        for form in ("1.0", "1.1", "2.0", "2.1", "3.0", "3.1"):  # tasks, and a workspace of other rubbish
            assert (tmp_path / f"out{i}.{form}").read_bytes() == wanted.tobytes(), form


@pytest.mark.parametrize("board", ("rpi3b", "rpi3b-32"))
def test_the_example_with_threads(board, tmp_path):
    (x,), (y,) = sample("brevitas_residual_w3a4")
    made = mp.export_c(model("brevitas_residual_w3a4"), board, tmp_path / "c", name="net")
    program = tmp_path / "example"
    subprocess.run(
        [
            TOOLS[load_target(board).arch][0],
            "-std=c11",
            "-O1",
            "-static",
            "-DTHREADS",
            "-pthread",
            "-o",
            program,
            made.folder / "example.c",
            f"-I{made.folder}",
            made.folder / "libnet.a",
            "-lm",
        ],
        check=True,
    )
    x.tofile(tmp_path / "x")
    for threads in ("1", "3"):
        done = emulate(board, program, "-t", threads, tmp_path / "x", tmp_path / "y")
        assert done.returncode == 0, done.stderr
        assert (tmp_path / "y").read_bytes() == y.tobytes()


def test_a_core_without_the_dot_product_is_refused(tmp_path):
    """No illegal instruction: HWCAP is asked first."""
    program = build("brevitas_concat", "rpi5", tmp_path)
    sample("brevitas_concat")[0][0].tofile(tmp_path / "x")
    done = emulate("rpi5", program, tmp_path / "x", tmp_path / "y", core="cortex-a72")
    assert done.returncode == 1 and "lacks an instruction" in done.stdout
