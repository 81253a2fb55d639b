"""Exported networks under valgrind, natively: no byte is read before it was written, none outside of what was given,
none lost. The sanitizers of tests/compile see the C alone; valgrind sees what TVM generated, too.

It knows no AVX-512: the levels below it are what it runs.
"""

import subprocess
from pathlib import Path

import numpy as np
import pytest

import mpcompile as mp

DATA = Path(__file__).parents[1] / "data"


@pytest.mark.parametrize("target", ["x86-64-v2", "x86-64-v3"])
@pytest.mark.parametrize(
    "model",
    [
        pytest.param("brevitas_residual_w3a4", marks=pytest.mark.quick),
        "brevitas_separable_qcdq",
        "brevitas_keywords",
        "ort_qdq_uint8",
    ],
)
def test_clean(model, target, tmp_path):
    made = mp.export_c(DATA / f"{model}.onnx", target, tmp_path / "c", name="net")
    mp.compile(DATA / f"{model}.onnx", target, tmp_path / "m.mpc")
    with mp.open_bundle(tmp_path / "m.mpc", threads=1) as bundle:
        x = np.random.default_rng(0).normal(0, 1.5, bundle.inputs[0].shape).astype(np.float32)
        y = bundle.run(x)
    x.tofile(tmp_path / "x")
    subprocess.run(
        [
            "gcc",
            "-std=c11",
            "-O1",
            "-g",
            "-DTHREADS",
            "-pthread",
            "-o",
            tmp_path / "example",
            made.folder / "example.c",
            f"-I{made.folder}",
            made.folder / "libnet.a",
            "-lm",
        ],
        check=True,
    )
    for threads in ("1", "2"):
        done = subprocess.run(
            [
                "valgrind",
                "-q",
                "--error-exitcode=9",
                "--leak-check=full",
                "--show-leak-kinds=all",
                tmp_path / "example",
                "-t",
                threads,
                tmp_path / "x",
                tmp_path / "y",
            ],
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        assert (tmp_path / "y").read_bytes() == y.tobytes()
