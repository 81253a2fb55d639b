"""CUDA C on this CPU, for tests of exactness: what a bundle's code launches, without a device.

threads.h has threads, barriers and shared memory; language.h the words of the language; warp.h mma, ldmatrix, cp.async.
"""

from __future__ import annotations

import ctypes
import re
import subprocess
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from mpcompile.compiler.cuda.source import CudaSource

HERE = Path(__file__).parent
KERNEL = re.compile(r'extern "C" __global__ void (?:__launch_bounds__\([^)]*\) )?(\w+)\(([^)]*)\)\s*\{')
FLAGS = (
    "-std=c++17",
    "-O1",
    "-w",
    "-shared",
    "-fPIC",
    "-fvisibility=hidden",
    "-ffp-contract=off",
    "-fno-strict-aliasing",
)
DYNAMIC = re.compile(r"extern __shared__ (?:__align__\(\d+\) )?(\w+) (\w+)\[\];")
TYPEDEFS = re.compile(r"^typedef .*int64_t;$|^typedef .*uint;$|^typedef .*int8_t;.*$", re.M)
COPY = re.compile(
    r"(void ptx_cp_async_\w+_(\d+)_(\d+)_(\d+)\(void\* dst, int dst_off, void\* src, int src_off\) \{).*?\n\}", re.S
)


def host_source(source: str) -> str:
    """CUDA C as C++, with a function emu_call_KERNEL of each kernel, which takes the addresses of its arguments."""
    source = TYPEDEFS.sub("", source)
    source = DYNAMIC.sub(r"\1* \2 = (\1*)emulate::dynamic_shared;", source)
    source = COPY.sub(r"\1 emulate_cp_async((char*)dst + dst_off * \3, (char*)src + src_off * \4, \2); }", source)
    source = re.sub(r'asm volatile\("cp.async.commit_group;"[^;]*;', "emulate_cp_async_commit();", source)
    source = re.sub(r'asm volatile\("cp.async.wait_group (\d+);"[^;]*;', r"emulate_cp_async_wait(\1);", source)
    calls = []
    for name, parameters in KERNEL.findall(source):
        types = [re.sub(r"\s*(__restrict__)?\s*\w+$", "", p.strip()) for p in parameters.split(",") if p.strip()]
        values = ", ".join(f"*({kind}*)p[{i}]" for i, kind in enumerate(types))
        shown = 'extern "C" __attribute__((visibility("default")))'
        calls.append(f"{shown} void emu_call_{name}(void** p) {{ {name}({values}); }}\n")
        calls.append(f"{shown} const int emu_params_{name} = {len(types)};\n")
    return f'#include "{HERE}/warp.h"\n{source}\n{"".join(calls)}'


@cache
def library(source: str) -> bytes:
    """A shared library of CUDA C: what stands for its cubin."""
    with TemporaryDirectory() as folder:
        text, made = Path(folder, "kernels.cpp"), Path(folder, "kernels.so")
        text.write_text(host_source(source))
        subprocess.run(["g++", *FLAGS, "-o", made, text], check=True)
        return made.read_bytes()


class Emulated:
    """The functions of CUDA C that the compiler made."""

    def __init__(self, source: CudaSource):
        self._functions = source.functions
        with TemporaryDirectory() as folder:
            path = Path(folder, "kernels.so")
            path.write_bytes(library(source.text))
            self._library = ctypes.CDLL(str(path))

    def __call__(self, name: str, arrays: Sequence[np.ndarray]) -> None:
        """Calls a function with its tensors, which it writes in place. Fails where threads wait for ever."""
        function = self._functions[name]
        assert len(arrays) == function.parameters, f"{name} takes {function.parameters} tensors"
        scratch = [np.full(n, 0x5A, np.uint8) for n in function.scratch]
        places = [a.ctypes.data for a in (*arrays, *scratch)]
        for launch in function.launches:
            values = (ctypes.c_void_p * len(launch.arguments))(*[places[i] for i in launch.arguments])
            first, size = ctypes.addressof(values), ctypes.sizeof(ctypes.c_void_p)
            pointers = (ctypes.c_void_p * len(values))(*[first + size * i for i in range(len(values))])
            grid, block = ((ctypes.c_uint * 3)(*shape) for shape in (launch.grid, launch.block))
            kernel = getattr(self._library, f"emu_call_{launch.kernel}")
            status = self._library.emu_launch(kernel, grid, block, launch.shared_bytes, pointers)
            assert status == 0, f"kernel {launch.kernel} did not end: {status}"
