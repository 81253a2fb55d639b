"""A network compiled for a CUDA device, all the way: its kernels emulated, its bundle and its C by the stand-in."""

import subprocess
from pathlib import Path

import numpy as np
import pytest

from benchmarks.networks import Bits, resnet18
from mpcompile.api.compile import compile_model
from mpcompile.api.export_c import export_c
from mpcompile.compiler.cuda import nvrtc
from tests.cuda import standin as standins
from tests.cuda.emulate import library
from tests.cuda.test_c_export import ran

MODEL = Path(__file__).parents[1] / "data" / "brevitas_cnn_w2a2.onnx"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder with m.mpc and its C, whose cubins are libraries for this CPU."""
    folder = tmp_path_factory.mktemp("made")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(nvrtc, "cubin", lambda source, arch: library(source))
        compile_model(MODEL, "a100", folder / "m.mpc")
        exported = export_c(MODEL, "a100", folder / "c", name="net")
    assert exported.files == ("net.c", "net.h", "example.c", "CMakeLists.txt", "net.bin")
    return folder


def test_it_is_verified(made, standin):
    found = standins.command("verify", MODEL, made / "m.mpc", standin=standin)
    assert found.returncode == 0, found.stderr
    assert "equal: 8 buffers of 8 tensors and all outputs equal the reference" in found.stdout


def test_it_is_timed_as_a_whole_and_by_layers(made, standin):
    code = """
import sys
from mpcompile.runtime import open_bundle
with open_bundle(sys.argv[1], 1) as bundle:
    print(bundle.bench(0.2).seconds > 0, len(bundle.profile(0.2)) == len(bundle.plan.calls))
"""
    found = standins.run(
        code.replace("from mpcompile.api.profile import profile\n", ""), made / "m.mpc", standin=standin
    )
    assert found.stdout == "True True\n", found.stderr
    found = standins.command("bench", made / "m.mpc", standin=standin)
    assert found.returncode == 0 and "as a100" in found.stdout, found.stderr


def test_its_c_gives_the_bundles_results(made, standin):
    with np.load(MODEL.with_suffix(".npz")) as arrays:
        x = arrays["x"][:1].astype(np.float32)
    np.savez(made / "x.npz", x=x)
    found = standins.command(
        "run", made / "m.mpc", "--input", made / "x.npz", "--output", made / "y.npz", standin=standin
    )
    assert found.returncode == 0, found.stderr
    x.tofile(made / "c" / "x.raw")
    words = ["gcc", "-std=c11", "-Wall", "-Wextra", "-Werror", "-O1", "-o", "example", "example.c", "net.c", "-ldl"]
    subprocess.run(words, cwd=made / "c", check=True)
    done = ran(["./example", "x.raw", "y.raw"], made / "c", standin)
    assert done.returncode == 0, done.stderr
    with np.load(made / "y.npz") as arrays:
        np.testing.assert_array_equal(np.fromfile(made / "c" / "y.raw", np.float32), arrays["y"].ravel())


def test_resnet18_is_verified(tmp_path, standin):
    """At two bits, for Jetson Orin, on its tensor cores of single bits."""
    resnet18(Bits(2, 2), size=64).save(tmp_path / "net.onnx")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(nvrtc, "cubin", lambda source, arch: library(source))
        compile_model(tmp_path / "net.onnx", "orin", tmp_path / "net.mpc")
    found = standins.command(
        "verify", tmp_path / "net.onnx", tmp_path / "net.mpc", standin=standin, seconds=400, STANDIN_ARCH="87"
    )
    assert found.returncode == 0, found.stderr
    assert "all outputs equal the reference" in found.stdout
