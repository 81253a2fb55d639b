"""A network by hand for CUDA: y = 2x + b, then z = y·y by way of a scratch buffer; the plan of tests/runtime."""

from pathlib import Path

import numpy as np

from mpcompile.runtime.cuda.code import CudaCode, Function, Launch
from tests.runtime.small_bundle import BIAS, SHAPE, small_plan, small_target, small_variant, write_small

SOURCE = r"""
extern "C" __global__ void __launch_bounds__(64) scale_kernel(float* __restrict__ y, const float* __restrict__ x,
                                                              const float* __restrict__ b) {
  int i = blockIdx.x * blockDim.x + threadIdx.x;
  y[i] = x[i] * 2.0f + b[i / 64];
}
extern "C" __global__ void __launch_bounds__(32) square_kernel(const float* __restrict__ u, float* __restrict__ s) {
  int i = (blockIdx.y * gridDim.x + blockIdx.x) * 32 + threadIdx.y * blockDim.x + threadIdx.x;
  s[i] = u[i] * u[i];
}
extern "C" __global__ void copy_kernel(const float* __restrict__ s, float* __restrict__ z) {
  z[blockIdx.z * 32 + threadIdx.x] = s[blockIdx.z * 32 + threadIdx.x];
}
"""
FUNCTIONS = {
    "scale": Function(3, (), (Launch("scale_kernel", (4, 1, 1), (64, 1, 1), 0, (2, 0, 1)),)),
    "square": Function(
        2,
        (100, 1024),
        (
            Launch("square_kernel", (4, 2, 1), (8, 4, 1), 0, (0, 3)),
            Launch("copy_kernel", (1, 1, 8), (32, 1, 1), 65536, (3, 1)),
        ),
    ),
}


def code(**changes) -> CudaCode:
    from tests.cuda.emulate import library  # which knows the compiler: a process that only runs a bundle does not

    return CudaCode(**{"functions": FUNCTIONS, "cubins": {"sm_80": library(SOURCE)}} | changes)


def target(name="a100", arch="sm_80", **changes) -> dict:
    return small_target(name, kind="cuda", arch=arch, features=[], **changes)


def write(path: Path, **changes) -> Path:
    return write_small(path, small_variant(code(**changes).to_bytes(), target=target()))


def expected(x: np.ndarray) -> np.ndarray:
    return (x * np.float32(2) + BIAS[:, None, None]) ** 2


__all__ = ["SHAPE", "code", "expected", "small_plan", "target", "write"]
