"""What goes wrong with a CUDA device is said in one line, with the exit code of its kind."""

import json

import numpy as np
import pytest

from mpcompile.runtime.cuda.code import Function, Launch
from tests.cuda import standin as standins
from tests.cuda.emulate import library
from tests.cuda.small_network import FUNCTIONS, SHAPE, SOURCE, write


@pytest.fixture(scope="module")
def x(tmp_path_factory):
    path = tmp_path_factory.mktemp("x") / "x.npz"
    np.savez(path, x=np.ones(SHAPE, np.float32))
    return path


def refused(bundle, x, standin, **environment) -> tuple[int, str]:
    """Exit code and the one line that `mpcompile run` complains with."""
    words = ("run", bundle, "--input", x, "--output", x.with_name("y.npz"))
    found = standins.command(*words, standin=standin, **environment)
    lines = [line for line in found.stderr.splitlines() if not line.startswith("stand-in: ")]
    assert len(lines) == 1, found.stderr
    return found.returncode, lines[0]


@pytest.mark.parametrize(
    "fail, code, said",
    [
        (
            "cuInit:803",
            4,
            "the CUDA driver refuses: cuInit: CUDA_ERROR_SYSTEM_DRIVER_MISMATCH (as the stand-in was told)",
        ),
        (
            "cuDevicePrimaryCtxRetain:2",
            2,
            "out of memory (the CUDA device has too little memory, cuDevicePrimaryCtxRetain",
        ),
        ("cuMemAlloc:2:1", 2, "out of memory (the CUDA device has too little memory, cuMemAlloc"),
        ("cuMemAlloc:2:3", 3, "there is no memory for a workspace of 1024 bytes"),
        ("cuModuleLoadData:200", 4, "cuModuleLoadData: CUDA_ERROR_INVALID_IMAGE"),
        ("cuModuleGetFunction:500:2", 3, "the bundle's library has no kernel square_kernel: "),
        ("cuLaunchKernel:1:2", 4, "the CUDA driver refuses: cuLaunchKernel: CUDA_ERROR_INVALID_VALUE"),
        ("cuGraphInstantiate:801", 4, "the CUDA driver refuses: cuGraphInstantiate: error 801 (error 801)"),
        ("cuMemcpyHtoDAsync:214:2", 4, "the CUDA device was lost: cuMemcpyHtoDAsync: CUDA_ERROR_ECC_UNCORRECTABLE"),
        ("kernel:719:2", 4, "the CUDA device was lost: cuStreamSynchronize: CUDA_ERROR_LAUNCH_FAILED"),
        ("kernel:702:3", 4, "the CUDA device was lost: cuStreamSynchronize: CUDA_ERROR_LAUNCH_TIMEOUT"),
        ("cuStreamSynchronize:999", 4, "the CUDA device was lost: cuStreamSynchronize: CUDA_ERROR_UNKNOWN"),
    ],
)
def test_every_refusal_is_one_line(bundle, x, standin, fail, code, said):
    found, line = refused(bundle, x, standin, STANDIN_FAIL=fail)
    assert said in line and found == code


def test_no_driver_no_device_another_device(tmp_path, bundle, x, standin):
    assert refused(bundle, x, standins.none(tmp_path))[1].endswith("libcuda.so.1: file too short)")
    (tmp_path / "old").mkdir()
    (tmp_path / "old.cpp").write_text(
        'extern "C" __attribute__((visibility("default"))) int cuInit(unsigned) { return 0; }'
    )
    old = standins.build(tmp_path / "old", tmp_path / "old.cpp")
    assert "driver of this machine is too old: libcuda.so.1 has no cuDriverGetVersion" in refused(bundle, x, old)[1]
    code, line = refused(bundle, x, standin, STANDIN_DEVICES="0")
    assert code == 4 and line.endswith("was built for sm_80: the CUDA driver of this machine finds no device")
    code, line = refused(bundle, x, standin, STANDIN_ARCH="87")
    assert code == 4 and line.endswith("was built for sm_80, this machine is sm_87")


def test_too_small_a_device(bundle, x, standin):
    code, line = refused(bundle, x, standin, STANDIN_MEMORY="3000")
    assert code == 3 and "there is no memory for a workspace of 1024 bytes and for 1 inputs and 1 outputs" in line


@pytest.mark.parametrize(
    "functions, said",
    [
        ({"scale": FUNCTIONS["scale"]}, "the bundle's library has no function square, which its plan calls"),
        (FUNCTIONS | {"scale": Function(2, (), ())}, "the plan calls scale with 3 tensors, and it takes 2"),
        (
            FUNCTIONS | {"scale": Function(3, (), (Launch("scale_kernel", (4, 1, 1), (64, 1, 1), 170000, (2, 0, 1)),))},
            "kernel scale_kernel needs 170000 bytes of shared memory a block, and Stand-in 0 has 166912",
        ),
        (
            FUNCTIONS | {"scale": Function(3, (), (Launch("no_kernel", (4, 1, 1), (64, 1, 1), 0, (2, 0, 1)),))},
            "the bundle's library has no kernel no_kernel",
        ),
    ],
)
def test_code_that_does_not_fit_its_plan(tmp_path, x, standin, functions, said):
    assert said in refused(write(tmp_path / "m.mpc", functions=functions), x, standin)[1]


def test_damaged_code(tmp_path, x, standin, monkeypatch):
    monkeypatch.setattr("tests.cuda.small_network.CudaCode.to_bytes", lambda self: b"MPCUDA1\nxxxxxxxxx")
    code, line = refused(write(tmp_path / "m.mpc"), x, standin)
    assert code == 3 and "the bundle's CUDA code is damaged: it was cut within its header" in line


def test_a_kernel_that_writes_beside_its_tensors(tmp_path, x, standin):
    wrong = library(SOURCE.replace("y[i] = x[i]", "y[i + 4] = x[i]"))
    code, line = refused(write(tmp_path / "m.mpc", cubins={"sm_80": wrong}), x, standin)
    assert code == 4 and "the CUDA device was lost: cuStreamSynchronize: CUDA_ERROR_ILLEGAL_ADDRESS" in line


def test_nobody_is_harmed_by_what_was_lost(bundle, standin):
    """Objects that outlive the device are freed without a word; every later call says that it is lost."""
    text = """
import gc, sys
import numpy as np
from mpcompile.errors import DeviceLost
from mpcompile.runtime import open_bundle
from tests.cuda.small_network import SHAPE
bundle = open_bundle(sys.argv[1])
for _ in range(2):
    try:
        bundle.run(np.ones(SHAPE, np.float32))
    except DeviceLost as error:
        print(error.cause, error.by_work)
bundle.close()
gc.collect()
"""
    found = standins.run(text, bundle, standin=standin, STANDIN_FAIL="kernel:719")
    assert found.stdout == "crash True\ncrash True\n" and not found.stderr


def test_inspect_needs_no_device(tmp_path, bundle, standin):
    for driver, runs in ((standins.none(tmp_path), False), (standin, True)):
        found = standins.command("inspect", bundle, "--json", "-", standin=driver)
        assert found.returncode == 0, found.stderr
        assert [v["runs_here"] for v in json.loads(found.stdout)["variants"]] == [runs]
