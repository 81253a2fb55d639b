"""Every network of tests/data through Relax: outputs equal the bundle's, bit for bit."""

from pathlib import Path

import numpy as np
import onnx
import pytest

import mpcompile as mp
from mpcompile.relax import BitSerialize, from_onnx
from tests.relax.modules import run

DATA = Path(__file__).parents[1] / "data"
NAMES = sorted(p.stem for p in DATA.glob("*.onnx"))


@pytest.mark.parametrize("name", NAMES)
def test_outputs_equal_the_bundle(name, tmp_path):
    path = DATA / f"{name}.onnx"
    mp.compile(path, output=tmp_path / "net.mpc")
    with mp.open_bundle(tmp_path / "net.mpc", threads=1) as bundle:
        shapes = {port.name: [1, *port.shape] for port in bundle.inputs}
        rng = np.random.default_rng(0)
        inputs = {n: rng.standard_normal(s).astype(np.float32) for n, s in shapes.items()}
        wanted = bundle.run(inputs)
        order = [port.name for port in bundle.outputs]
    said = []
    mod = BitSerialize(say=said.append)(from_onnx(onnx.load(path), shape_dict=shapes, keep_params_in_input=False))
    found = run(mod, *inputs.values())
    wanted = [wanted[n] for n in order] if isinstance(wanted, dict) else [wanted]
    for mine, theirs in zip(found, wanted, strict=True):
        np.testing.assert_array_equal(mine.reshape(theirs.shape), theirs)
    assert "mpcompile_main_0" in said[0]
