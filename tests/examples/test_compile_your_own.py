"""Every script of examples/compile_your_own does what its first lines say."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.patience import PATIENCE

ROOT = Path(__file__).parents[2]
SCRIPTS = ROOT / "examples" / "compile_your_own"
MODELS = ROOT / "tests" / "data"


def script(name: str, *arguments, cwd) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, str(SCRIPTS / name), *map(str, arguments)],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )


def test_brevitas_module(tmp_path):
    pytest.importorskip("brevitas")
    done = script("brevitas_module.py", "-o", "mine.mpc", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "8 of 8 top-1 answers are torch's" in done.stdout
    assert (tmp_path / "mine.mpc").exists() and (tmp_path / "mine.onnx").exists()


@pytest.mark.parametrize("model", ["brevitas_residual_w3a4.onnx", "brevitas_residual_qcdq.onnx", "ort_qdq_int8.onnx"])
def test_onnx_file(tmp_path, model):
    done = script("onnx_file.py", MODELS / model, "-o", "mine.mpc", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "equal the reference" in done.stdout and "µs on one core" in done.stdout


def test_onnx_file_refuses_in_one_line(tmp_path):
    (tmp_path / "cut.onnx").write_bytes((MODELS / "ort_qdq_int8.onnx").read_bytes()[:200])
    done = script("onnx_file.py", "cut.onnx", cwd=tmp_path)
    assert done.returncode == 3
    assert "cut.onnx" in done.stderr and len(done.stderr.strip().splitlines()) == 1
    assert [f.name for f in tmp_path.iterdir()] == ["cut.onnx"]


def test_float_onnx_to_int8(tmp_path):
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    network = torch.nn.Sequential(
        torch.nn.Conv2d(3, 32, 3, padding=1),
        torch.nn.ReLU(),
        torch.nn.Conv2d(32, 32, 3, stride=2),
        torch.nn.ReLU(),
        torch.nn.AdaptiveAvgPool2d(1),
        torch.nn.Flatten(),
        torch.nn.Linear(32, 5),
    )
    torch.onnx.export(
        network.eval(),
        (torch.zeros(1, 3, 16, 16),),
        str(tmp_path / "float.onnx"),
        input_names=["x"],
        opset_version=17,
        dynamo=False,
    )
    np.savez(tmp_path / "samples.npz", x=np.random.default_rng(0).normal(size=(16, 3, 16, 16)).astype(np.float32))
    source = (tmp_path / "float.onnx").read_bytes()
    done = script("float_onnx_to_int8.py", "float.onnx", "samples.npz", "-o", "float.mpc", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "largest difference to ONNX Runtime" in done.stdout
    assert sorted(f.name for f in tmp_path.iterdir()) == ["float.int8.onnx", "float.mpc", "float.onnx", "samples.npz"]
    assert (tmp_path / "float.onnx").read_bytes() == source
    quantized = (tmp_path / "float.int8.onnx").read_bytes()
    done = script("float_onnx_to_int8.py", "float.int8.onnx", "samples.npz", "-o", "float.mpc", cwd=tmp_path)
    assert done.returncode == 2 and "float.int8.onnx would replace the float model" in done.stderr
    assert (tmp_path / "float.int8.onnx").read_bytes() == quantized
