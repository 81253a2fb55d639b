"""The command that other environments ask, and the example."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import tvm
from tvm import relay

from mpcompile.tvm_frontend.child import ask, compiling_python
from mpcompile.tvm_frontend.relay.command import to_onnx
from tests.relay.modules import conv, integers, quantized, run
from tests.relay.test_pass import layer, module

ROOT = Path(__file__).parents[2]


def test_a_module_in_json_becomes_a_bundle(tmp_path):
    """With parameters beside it, as relay.save_param_dict writes them: by the other environment's command line."""
    mod = module(layer, (1, 4, 6, 6))
    bias = relay.var("bias", shape=(1, 6, 1, 1))
    function = relay.Function([*mod["main"].params, bias], relay.add(mod["main"].body, bias))
    given = np.arange(6, dtype=np.float32).reshape(1, 6, 1, 1) / 8
    whole = relay.transform.InferType()(tvm.IRModule.from_expr(function))
    (tmp_path / "module.json").write_text(tvm.ir.save_json(whole))
    (tmp_path / "params.bin").write_bytes(relay.save_param_dict({"bias": tvm.nd.array(given)}))
    np.savez(tmp_path / "x.npz", x0=integers((1, 4, 6, 6)))
    mpcompile(tmp_path, "compile", "module.json", "--params", "params.bin")
    mpcompile(tmp_path, "run", "module.mpc", "--input", "x.npz", "--output", "y.npz")
    (found,) = dict(np.load(tmp_path / "y.npz")).values()
    np.testing.assert_array_equal(found, run(mod, integers((1, 4, 6, 6)))[0] + given)


def test_a_module_in_json_is_tuned(tmp_path):
    """A bundle of it has the records' schedules, and the numbers that TVM computes."""
    mod, x = module(lambda rng, x: conv(rng, quantized(x), 32, 48), (1, 32, 12, 12)), integers((1, 32, 12, 12))
    (tmp_path / "module.json").write_text(tvm.ir.save_json(mod))
    np.savez(tmp_path / "x.npz", x0=x)
    mpcompile(tmp_path, "tune", "module.json", "-o", "records", "--trials", "2", "--threads", "1")
    assert len(list((tmp_path / "records").glob("*.json"))) == 1
    mpcompile(tmp_path, "compile", "module.json", "--records", "records")
    assert mpcompile(tmp_path, "inspect", "module.mpc").count("(record)") == 2
    mpcompile(tmp_path, "run", "module.mpc", "--input", "x.npz", "--output", "y.npz")
    (found,) = dict(np.load(tmp_path / "y.npz")).values()
    np.testing.assert_array_equal(found, run(mod, x)[0])


def mpcompile(folder, *arguments):
    """The other environment's command line; what it prints."""
    environment = {**os.environ, "MPCOMPILE_RELAY_PYTHON": sys.executable, "PYTHONPATH": str(ROOT)}
    command = [compiling_python(), "-m", "mpcompile", *arguments]
    return subprocess.run(command, check=True, cwd=folder, env=environment, capture_output=True, text=True).stdout


def test_its_onnx_model_is_valid():
    model = to_onnx(module(layer, (1, 4, 6, 6)))
    onnx.checker.check_model(model)
    assert [i.name for i in model.graph.input] == ["x0"]


def test_a_module_of_another_tvm_is_refused(tmp_path):
    (tmp_path / "module.json").write_text(json.dumps({"root": 0, "nodes": [], "b64ndarrays": []}))
    command = [sys.executable, "-m", "mpcompile.tvm_frontend.relay.command", "onnx", "module.json", "-o", "m.onnx"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    answer = json.loads(done.stdout.splitlines()[-1])
    assert done.returncode == 3 and answer["kind"] == "ModelError" and "is no module of Relay" in answer["error"]
    assert not (tmp_path / "m.onnx").exists()


def test_the_example(tmp_path):
    model = ROOT / "tests" / "data" / "brevitas_mlp_w3a3.onnx"
    script = ROOT / "examples" / "relay" / "onnx_file.py"
    done = subprocess.run([sys.executable, script, model, "-o", tmp_path / "net.so"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "mpcompile_main_0" in done.stdout and "µs" in done.stdout


def test_python_that_does_not_run(tmp_path):
    script = tmp_path / "python"
    script.write_text("#!/bin/sh\necho 'something is missing' >&2; exit 1\n")
    script.chmod(0o755)
    try:
        ask(str(script), "mpcompile.tvm_frontend.build", [])
    except Exception as error:
        assert type(error).__name__ == "MissingDependency" and "something is missing" in str(error)
    else:
        raise AssertionError("it was taken")
