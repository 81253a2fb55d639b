"""Networks of tests/data, ResNet-18 and searched ones through Relay: outputs equal the bundle's, bit for bit."""

import subprocess
from pathlib import Path

import numpy as np
import onnx
import pytest

from benchmarks.networks import Bits, resnet18
from mpcompile.relay import BitSerialize, from_onnx
from mpcompile.tvm_frontend.child import compiling_python
from tests.relay.modules import run

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
    compiling("tests.relax.searched", str(tmp_path / "net.onnx"), str(seed))
    equals_the_bundle(tmp_path / "net.onnx", tmp_path)


def compiling(*words):
    subprocess.run([compiling_python(), "-m", *words], check=True, cwd=DATA.parents[1])


def equals_the_bundle(path, tmp_path):
    made = tmp_path / "bundle.npz"
    compiling("tests.relay.bundle", str(path), str(made))
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
