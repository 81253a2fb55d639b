"""Scheduled PrimFuncs to CUDA C, by TVM's passes and code generator, and to the launches of its kernels.

TVM splits a function into kernels and a host function that launches them one after another. That one is not built: it is
read, right before its arguments become those of a packed function, for what each launch is given.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import tvm
import tvm_ffi
from tvm import tirx
from tvm.tirx.compilation_pipeline import get_tir_pipeline

from mpcompile.compiler.scratch import nbytes
from mpcompile.errors import TargetError
from mpcompile.kernels.tvm_names import PrimFunc, buffer_of
from mpcompile.runtime.cuda.code import Function, Launch

WARP_BUFFERS = 8
"""TVM 0.27 lowers the first warp buffer of a kernel that it meets, and no other, each time that it is asked."""

OPTIONS = {"tirx.disable_cse_tir": True, "tirx.use_async_copy": True}
"""Common subexpressions are found by NVRTC; TVM's pass takes them out of asynchronous copies, which are none then."""

HEAD = """
typedef signed char int8_t; typedef unsigned char uint8_t; typedef short int16_t; typedef unsigned short uint16_t;
typedef int int32_t; typedef unsigned int uint32_t; typedef long long int64_t; typedef unsigned long long uint64_t;
typedef unsigned char uchar; typedef unsigned short ushort; typedef unsigned int uint;
"""
"""What TVM's source takes from headers that NVRTC does not come with."""

INCLUDED = re.compile(r"#ifdef __CUDACC_RTC__.*?#else.*?#endif\n", re.S)
"""Where TVM's source includes them."""

LAUNCHED = "tirx.kernel_launch_params"
"""TVM's attribute of a kernel: which of its last arguments are the dimensions of its grid and blocks."""

DIMENSIONS = {f"{what}Idx.{axis}": (what, i) for what in ("block", "thread") for i, axis in enumerate("xyz")}


@dataclass(frozen=True)
class CudaSource:
    """CUDA C without includes, and what each function launches of it."""

    text: str
    functions: Mapping[str, Function]


def source_of(functions: Mapping[str, PrimFunc], target: dict[str, Any]) -> CudaSource:
    """`target`: TVM's dict. Each function is scheduled: all of its loops are bound to blocks and threads.

    Raises TargetError where one does something outside of its kernels.
    """
    device = tvm.target.Target(target, host="llvm")
    seen = _BeforePacking()
    lower, _, finish = get_tir_pipeline("default")  # pyright: ignore[reportGeneralTypeIssues]
    named = {name: function.with_attr("global_symbol", name) for name, function in functions.items()}
    with tvm.transform.PassContext(opt_level=3, config=OPTIONS, instruments=[seen]):
        module = lower(tirx.transform.BindTarget(device)(tvm.IRModule(named)))
        kernels = tirx.transform.Filter(lambda f: f.attrs["target"].kind.name == "cuda")(module)
        for _ in range(WARP_BUFFERS):
            kernels = tirx.transform.LowerWarpMemory()(kernels)
        built: Any = tvm.get_global_func("target.build.cuda")(finish()(kernels), device)
    text = HEAD + INCLUDED.sub("", built.inspect_source(), count=1)
    return CudaSource(text, {name: _function(name, seen.hosts[name], seen.kernels) for name in functions})


@tvm.ir.instrument.pass_instrument
class _BeforePacking:
    """The host functions and the kernels, by name."""

    def __init__(self):
        self.hosts: dict[str, Any] = {}
        self.kernels: dict[str, Any] = {}

    def run_before_pass(self, mod, info) -> None:
        if info.name == "tirx.MakePackedAPI":
            for var, function in mod.functions.items():
                kept = self.kernels if LAUNCHED in function.attrs else self.hosts
                kept[var.name_hint] = function


def _function(name: str, host: PrimFunc, kernels: Mapping[str, Any]) -> Function:
    """What a host function launches. Its buffers are known by their names: stages of one kernel have different ones."""
    parameters = [buffer_of(host, i).name for i in range(len(host.params))]
    scratch: dict[str, int] = {}
    launches: list[Launch] = []

    def place(argument: Any) -> int:
        return [*parameters, *scratch].index(argument.args[0].name)

    def launch(call: Any) -> Any:
        if getattr(call.op, "name", "") == "tirx.call_ffi_kernel":
            kernel = str(call.args[0].value)
            tags = list(kernels[kernel].attrs[LAUNCHED])
            pointers, sizes = call.args[1 : len(call.args) - len(tags)], call.args[len(call.args) - len(tags) :]
            shape = {"block": [1, 1, 1], "thread": [1, 1, 1]}
            shared = 0
            for tag, size in zip(tags, sizes):
                if str(tag) in DIMENSIONS:
                    what, axis = DIMENSIONS[str(tag)]
                    shape[what][axis] = int(size)
                else:
                    shared = int(size)
            grid, block = _three(shape["block"]), _three(shape["thread"])
            launches.append(Launch(kernel, grid, block, shared, tuple(map(place, pointers))))
        return call

    def allocation(node: Any) -> Any:
        scratch[node.buffer.name] = nbytes(node.buffer)
        return node

    assert len(set(parameters)) == len(parameters), f"{name}: two parameters of one name among {parameters}"
    tvm_ffi.structural_map(host.body, [(tirx.AllocBuffer, allocation)])
    tvm_ffi.structural_map(host.body, [(tvm.ir.Call, launch)])
    if not launches:
        raise TargetError(f"function {name} has no kernel that a CUDA device could run")
    return Function(len(parameters), tuple(scratch.values()), tuple(launches))


def _three(values: list[int]) -> tuple[int, int, int]:
    x, y, z = values
    return x, y, z
