"""Whole networks as C libraries, linked with their own example and run under QEMU: the bytes that x86 computes."""

import subprocess
import tempfile
from functools import cache
from pathlib import Path

import numpy as np
import pytest

import mpcompile as mp
from mpcompile.targets import load_target
from tests.arm.emulator import TOOLS, emulated_core

DATA = Path(__file__).parents[1] / "data"
BOARDS = ("rpi3b", "rpi4b", "rpi5", "rpi3b-32", "rpi4b-32")
MODELS = ("brevitas_residual_w3a4", "brevitas_concat", "ort_qdq_uint8")


@cache
def sample(model: str) -> tuple[np.ndarray, np.ndarray]:
    """One sample of the model's input, and what the x86 bundle makes of it."""
    with tempfile.TemporaryDirectory() as folder:
        path = mp.compile(DATA / f"{model}.onnx", "x86-64-v3", Path(folder) / "m.mpc")
        with mp.open_bundle(path, threads=1) as bundle:
            x = np.random.default_rng(0).normal(0, 1.5, bundle.inputs[0].shape).astype(np.float32)
            return x, bundle.run(x)


@pytest.mark.parametrize("board", BOARDS)
@pytest.mark.parametrize("model", MODELS)
def test_the_same_bytes(model, board, tmp_path):
    x, y = sample(model)
    target = load_target(board)
    compiler, emulator = TOOLS[target.arch]
    made = mp.export_c(DATA / f"{model}.onnx", board, tmp_path / "c", name="net")
    program = tmp_path / "example"
    subprocess.run([compiler, "-std=c11", "-O1", "-static", "-DTHREADS", "-pthread", "-o", program,
                    made.folder / "example.c", f"-I{made.folder}", made.folder / "libnet.a", "-lm"], check=True)
    x.tofile(tmp_path / "x")
    for threads in ("1", "3"):
        subprocess.run([emulator, "-cpu", emulated_core(target), program, "-t", threads, tmp_path / "x",
                        tmp_path / "y"], check=True, capture_output=True, timeout=300)
        assert (tmp_path / "y").read_bytes() == y.tobytes()


def test_a_core_without_the_dot_product_is_refused(tmp_path):
    """No illegal instruction: HWCAP is asked first."""
    made = mp.export_c(DATA / "brevitas_concat.onnx", "rpi5", tmp_path / "c", name="net")
    compiler, emulator = TOOLS["aarch64"]
    program, data = tmp_path / "example", tmp_path / "x"
    subprocess.run([compiler, "-static", "-o", program, made.folder / "example.c", f"-I{made.folder}",
                    made.folder / "libnet.a", "-lm"], check=True)
    sample("brevitas_concat")[0].tofile(data)
    done = subprocess.run([emulator, "-cpu", "cortex-a72", program, data, tmp_path / "y"], capture_output=True, text=True)
    assert done.returncode == 1 and "lacks an instruction" in done.stderr
