"""Networks of tests/data through Relay: outputs equal the bundle's, bit for bit."""

import subprocess
from pathlib import Path

import numpy as np
import onnx
import pytest

from mpcompile.relay import BitSerialize, from_onnx
from mpcompile.tvm_frontend.child import compiling_python
from tests.relay.modules import run

DATA = Path(__file__).parents[1] / "data"
NAMES = sorted(p.stem for p in DATA.glob("*.onnx"))


@pytest.mark.parametrize("name", NAMES)
def test_outputs_equal_the_bundle(name, tmp_path):
    path, made = DATA / f"{name}.onnx", tmp_path / "bundle.npz"
    subprocess.run(
        [compiling_python(), "-m", "tests.relay.bundle", str(path), str(made)], check=True, cwd=DATA.parents[1]
    )
    held = dict(np.load(made))
    inputs = {key.removeprefix("input "): x for key, x in held.items() if key.startswith("input ")}
    wanted = [held[f"output {i}"] for i in range(len(held) - len(inputs))]
    said = []
    mod, _ = from_onnx(onnx.load(path), {n: x.shape for n, x in inputs.items()})
    new = BitSerialize(say=said.append)(mod)
    found = run(new, *[inputs[p.name_hint] for p in new["main"].params])
    for mine, theirs in zip(found, wanted, strict=True):
        np.testing.assert_array_equal(mine.reshape(theirs.shape), theirs)
    assert "mpcompile_main_0" in said[0]
