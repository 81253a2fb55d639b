"""Every network of tests/data, ResNet-18 and searched ones through Relax: outputs equal the bundle's, bit for bit."""

from pathlib import Path

import numpy as np
import onnx
import pytest

import mpcompile as mp
from benchmarks.networks import Bits, resnet18
from mpcompile.relax import BitSerialize, from_onnx
from tests.relax.modules import run
from tests.relax.searched import write

DATA = Path(__file__).parents[1] / "data"
NAMES = sorted(p.stem for p in DATA.glob("*.onnx"))


@pytest.mark.parametrize("name", NAMES)
def test_outputs_equal_the_bundle(name, tmp_path):
    equals_the_bundle(DATA / f"{name}.onnx", tmp_path)


@pytest.mark.parametrize("bits", [(1, 1), (1, 2), (2, 2), (4, 4), (8, 8)], ids=str)
def test_resnet18(bits, tmp_path):
    """At the bits of the uniform networks that the demo compares with."""
    resnet18(Bits(*bits), size=64).save(tmp_path / "net.onnx")
    equals_the_bundle(tmp_path / "net.onnx", tmp_path)


@pytest.mark.parametrize("seed", range(3))
def test_a_searched_network(seed, tmp_path):
    write(tmp_path / "net.onnx", seed)
    equals_the_bundle(tmp_path / "net.onnx", tmp_path)


def equals_the_bundle(path, tmp_path):
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
