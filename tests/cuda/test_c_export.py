"""The C of a network for CUDA: compiled by gcc, run by the stand-in for the driver, with nothing of Python."""

import os
import subprocess

import numpy as np
import pytest

from mpcompile.compiler.c_export.cuda.source import CudaExport
from mpcompile.errors import ModelError
from tests.cuda.small_network import SHAPE, code, expected, small_plan
from tests.runtime.small_bundle import small_weights

WARNINGS = ("-std=c11", "-Wall", "-Wextra", "-Wpedantic", "-Werror", "-O1")


def export(**changes) -> CudaExport:
    return CudaExport(
        **{
            "name": "small",
            "plan": small_plan(),
            "code": code(),
            "weights": small_weights(),
            "target": "a100",
            "source": "small.onnx",
            "version": "1",
        }
        | changes
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("export")
    for name, data in export().files().items():
        (folder / name).write_bytes(data)
    program("example.c", folder)
    return folder


def program(source, folder, *flags):
    words = ["gcc", *WARNINGS, *flags, "-o", source.removesuffix(".c"), source, "small.c", "-ldl"]
    subprocess.run(words, cwd=folder, check=True)


def ran(words, folder, standin, **environment):
    found = {"LD_LIBRARY_PATH": str(standin.parent), **environment}
    return subprocess.run(words, cwd=folder, env={**os.environ, **found}, capture_output=True, text=True)


def test_the_files(folder):
    assert sorted(p.name for p in folder.glob("small.*")) == ["small.bin", "small.c", "small.h"]
    assert "#define SMALL_OUTPUT_0_SIZE 256 /* z: 4 × 8 × 8 */" in (folder / "small.h").read_text()
    data, cubin = (folder / "small.bin").read_bytes(), code().cubins["sm_80"]
    assert data[: len(small_weights())] == small_weights() and data[256:] == cubin


def test_the_example_runs(folder, standin):
    x = np.random.default_rng(3).standard_normal(SHAPE).astype(np.float32)
    x.tofile(folder / "x.raw")
    found = ran(["./example", "-n", "3", "x.raw", "z.raw"], folder, standin)
    assert found.returncode == 0 and found.stdout.endswith(" us\n") and not found.stderr, found.stderr
    np.testing.assert_array_equal(np.fromfile(folder / "z.raw", np.float32).reshape(SHAPE), expected(x))


@pytest.mark.parametrize(
    "environment, said",
    [
        ({"LD_LIBRARY_PATH": "/nowhere"}, "there is no CUDA driver (libcuda.so.1), or it is too old (CUDA's code 0)"),
        ({"STANDIN_DEVICES": "0"}, "there is no such CUDA device (CUDA's code 100)"),
        ({"STANDIN_ARCH": "87"}, "no kernel was compiled for this device: sm_80 (CUDA's code 0)"),
        ({"STANDIN_ARCH": "90"}, "no kernel was compiled for this device: sm_80 (CUDA's code 0)"),
        ({"STANDIN_MEMORY": "2000"}, "there is too little memory (CUDA's code 2)"),
        ({"STANDIN_FAIL": "cuGraphInstantiate:2"}, "there is too little memory (CUDA's code 2)"),
        ({"STANDIN_FAIL": "cuLaunchKernel:1:2"}, "the CUDA driver refused, or the device was lost (CUDA's code 1)"),
        ({"STANDIN_FAIL": "kernel:719:4"}, "the CUDA driver refused, or the device was lost (CUDA's code 719)"),
    ],
)
def test_its_errors(folder, standin, environment, said):
    np.zeros(SHAPE, np.float32).tofile(folder / "x.raw")
    found = ran(["./example", "-n", "2", "x.raw", "z.raw"], folder, standin, **environment)
    assert found.returncode == 1 and found.stderr.splitlines()[-1] == f"small: {said}"


def test_a_later_device_of_its_family_runs_it(folder, standin):
    np.ones(SHAPE, np.float32).tofile(folder / "x.raw")
    assert ran(["./example", "x.raw", "z.raw"], folder, standin, STANDIN_ARCH="89").returncode == 0


CALLS = """
#include <dlfcn.h>
#include <stdio.h>
#include "small.h"
static float x[SMALL_INPUT_0_SIZE], y[SMALL_OUTPUT_0_SIZE], z[SMALL_OUTPUT_0_SIZE];
int main(void) {
  void *driver = dlopen("libcuda.so.1", RTLD_NOW);
  long (*left)(void) = 0, (*handles)(void) = 0;
  *(void **)&left = dlsym(driver, "standin_bytes");
  *(void **)&handles = dlsym(driver, "standin_handles");
  const float *in[] = {x};
  float *out[] = {y}, *other[] = {z};
  small_network *a, *b;
  for (int i = 0; i < SMALL_INPUT_0_SIZE; ++i) x[i] = (float)i;
  if (small_open(0, 0, 0) != SMALL_ERROR_NULL || small_run(0, in, out) != SMALL_ERROR_NULL) return 1;
  if (small_open(&a, 1, 0) != SMALL_ERROR_NO_DEVICE || a) return 2;
  if (small_open(&a, 0, 0) || small_open(&b, 0, 0)) return 3;
  if (small_run(a, in, other)) return 4;
  const float *none[] = {0};
  if (small_run(a, none, out) != SMALL_ERROR_NULL) return 5;
  x[0] = 7;
  if (small_run(b, in, out) || y[0] == z[0] || y[1] != z[1]) return 6;
  if (!small_input(a, 0) || small_input(a, 1) || !small_output(a, 0) || small_output(a, -1)) return 7;
  if (small_input(a, 0) == small_input(b, 0) || small_launch(a, 0) || small_driver_code(a)) return 8;
  small_close(a);
  if (small_run(b, in, other) || y[0] != z[0]) return 9;
  small_close(b);
  small_close(0);
  printf("%ld %ld\\n", left(), handles());
  return 0;
}
"""


def test_several_networks_side_by_side_leave_nothing(folder, standin):
    (folder / "calls.c").write_text(CALLS)
    program("calls.c", folder, "-fsanitize=undefined")
    found = ran(["./calls"], folder, standin)
    assert (found.returncode, found.stdout, found.stderr) == (0, "0 0\n", "")


def test_a_plan_that_its_code_does_not_fit():
    with pytest.raises(ModelError, match="the plan calls scale with 3 tensors, and there is none such"):
        export(code=code(functions={})).files()
