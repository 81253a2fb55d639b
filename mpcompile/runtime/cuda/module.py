"""Cubins on the device, and the functions of a plan that launch their kernels."""

from __future__ import annotations

import ctypes
from collections.abc import Callable

from mpcompile.errors import ModelError, TargetError
from mpcompile.runtime.cuda.architecture import best_for
from mpcompile.runtime.cuda.code import CudaCode, Launch
from mpcompile.runtime.cuda.memory import CudaMemory

MAX_DYNAMIC_SHARED = 8
"""CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES."""
ALIGNMENT = 256
"""Bytes at a multiple of which a scratch buffer begins, as a block of its own would."""


class Module:
    """The cubin for the device of `memory`, loaded; unloaded when no function of it is left.

    Raises ModelError where the code is damaged, TargetError where it has none for the device.
    """

    def __init__(self, library: bytes, memory: CudaMemory):
        self._code, self._memory = CudaCode.from_bytes(library), memory
        context = memory.context
        arch = best_for(self._code.cubins, context.device.arch)
        if arch is None:
            raise TargetError(
                f"the bundle has kernels for {', '.join(self._code.cubins)}, and none that run on "
                f"{context.device.name} ({context.device.arch})"
            )
        self._module = context.handle(self, "cuModuleLoadData", "cuModuleUnload", self._code.cubins[arch])
        # Functions run one after another, so that all can have the same memory.
        most = max((sum(map(_aligned, f.scratch)) for f in self._code.functions.values()), default=0)
        self._scratch = memory.alloc(most) if most else None
        self._kernels: dict[str, ctypes.c_void_p] = {}

    def function(self, name: str) -> Callable[..., None]:
        """It takes the addresses of its tensors, as many as it has parameters, or raises ModelError, and has started its
        kernels when it returns. Raises ModelError where the code has none of that name, or lacks a kernel of it,
        TargetError where the device cannot launch one."""
        found = self._code.functions.get(name)
        if found is None:
            raise ModelError(f"the bundle's library has no function {name}, which its plan calls")
        scratch, at = [], self._scratch.address if self._scratch else 0
        for nbytes in found.scratch:
            scratch.append(at)
            at += _aligned(nbytes)
        launches = [(self._kernel(launch), launch) for launch in found.launches]

        def run(*addresses: int) -> None:
            if len(addresses) != found.parameters:
                raise ModelError(
                    f"the plan calls {name} with {len(addresses)} tensors, and it takes {found.parameters}"
                )
            self._launch(launches, (*addresses, *scratch))

        return run

    def _launch(self, launches: list[tuple[ctypes.c_void_p, Launch]], addresses: tuple[int, ...]) -> None:
        api, stream = self._memory.context.enter(), self._memory.stream
        for kernel, launch in launches:
            count = len(launch.arguments)
            values = (ctypes.c_uint64 * count)(*[addresses[i] for i in launch.arguments])
            first = ctypes.addressof(values)
            pointers = (ctypes.c_void_p * count)(*range(first, first + 8 * count, 8))
            api.cuLaunchKernel(kernel, *launch.grid, *launch.block, launch.shared_bytes, stream, pointers, None)

    def _kernel(self, launch: Launch) -> ctypes.c_void_p:
        """Made ready for its dynamic shared memory, of which the driver grants 48 KiB unasked."""
        context = self._memory.context
        api, device = context.enter(), context.device
        if launch.kernel not in self._kernels:
            kernel = ctypes.c_void_p()
            try:
                api.cuModuleGetFunction(ctypes.byref(kernel), self._module, launch.kernel.encode())
            except TargetError as error:
                raise ModelError(f"the bundle's library has no kernel {launch.kernel}: {error}") from error
            self._kernels[launch.kernel] = kernel
            most = max(
                other.shared_bytes
                for function in self._code.functions.values()
                for other in function.launches
                if other.kernel == launch.kernel
            )
            if most > device.shared_bytes:
                raise TargetError(
                    f"kernel {launch.kernel} needs {most} bytes of shared memory a block, and {device.name} has "
                    f"{device.shared_bytes}"
                )
            api.cuFuncSetAttribute(kernel, MAX_DYNAMIC_SHARED, most)
        return self._kernels[launch.kernel]


def _aligned(nbytes: int) -> int:
    return nbytes + -nbytes % ALIGNMENT
