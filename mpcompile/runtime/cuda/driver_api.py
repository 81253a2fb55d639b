"""CUDA's driver API, libcuda.so.1, by ctypes: what running bundles needs of it, and its errors as this project's.

Names, signatures and numbers are those of cuda.h; each function is asked for in the oldest form that CUDA 10.2 has (a
Jetson Nano's) and that later drivers keep. Which library that is, the system's loader decides (LD_LIBRARY_PATH).
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from ctypes import POINTER, c_char_p, c_float, c_int, c_size_t, c_ubyte, c_uint, c_uint64, c_void_p
from functools import cache
from typing import Any

from mpcompile.errors import DeviceLost, TargetError

LIBRARY = "libcuda.so.1"

_out, _address = POINTER(c_void_p), c_uint64
_FUNCTIONS: dict[str, tuple] = {
    "cuInit": (c_uint,),
    "cuDriverGetVersion": (POINTER(c_int),),
    "cuDeviceGetCount": (POINTER(c_int),),
    "cuDeviceGet": (POINTER(c_int), c_int),
    "cuDeviceGetName": (c_char_p, c_int, c_int),
    "cuDeviceGetPCIBusId": (c_char_p, c_int, c_int),
    "cuDeviceGetAttribute": (POINTER(c_int), c_int, c_int),
    "cuDeviceTotalMem_v2": (POINTER(c_size_t), c_int),
    "cuDevicePrimaryCtxRetain": (_out, c_int),
    "cuCtxSetCurrent": (c_void_p,),
    "cuModuleLoadData": (_out, c_char_p),
    "cuModuleUnload": (c_void_p,),
    "cuModuleGetFunction": (_out, c_void_p, c_char_p),
    "cuFuncSetAttribute": (c_void_p, c_int, c_int),
    "cuLaunchKernel": (c_void_p, *[c_uint] * 7, c_void_p, c_void_p, c_void_p),
    "cuMemGetInfo_v2": (POINTER(c_size_t), POINTER(c_size_t)),
    "cuMemAlloc_v2": (POINTER(c_uint64), c_size_t),
    "cuMemFree_v2": (_address,),
    "cuMemcpyHtoDAsync_v2": (_address, c_void_p, c_size_t, c_void_p),
    "cuMemcpyDtoHAsync_v2": (c_void_p, _address, c_size_t, c_void_p),
    "cuMemsetD8Async": (_address, c_ubyte, c_size_t, c_void_p),
    "cuStreamCreate": (_out, c_uint),
    "cuStreamDestroy_v2": (c_void_p,),
    "cuStreamSynchronize": (c_void_p,),
    "cuStreamBeginCapture_v2": (c_void_p, c_int),
    "cuStreamEndCapture": (c_void_p, _out),
    "cuGraphInstantiate": (_out, c_void_p, c_void_p, c_void_p, c_size_t),
    "cuGraphLaunch": (c_void_p, c_void_p),
    "cuGraphDestroy": (c_void_p,),
    "cuGraphExecDestroy": (c_void_p,),
    "cuEventCreate": (_out, c_uint),
    "cuEventDestroy_v2": (c_void_p,),
    "cuEventRecord": (c_void_p, c_void_p),
    "cuEventSynchronize": (c_void_p,),
    "cuEventElapsedTime": (POINTER(c_float), c_void_p, c_void_p),
    "cuGetErrorName": (c_int, POINTER(c_char_p)),
    "cuGetErrorString": (c_int, POINTER(c_char_p)),
}

OUT_OF_MEMORY, NOT_INITIALIZED, NO_DEVICE = 2, 3, 100
NO_BINARY = (200, 209)
"""CUDA_ERROR_INVALID_IMAGE, CUDA_ERROR_NO_BINARY_FOR_GPU."""
LOST = {
    46: "connection",  # DEVICE_UNAVAILABLE
    214: "connection",  # ECC_UNCORRECTABLE
    220: "connection",  # NVLINK_UNCORRECTABLE
    226: "connection",  # CONTAINED
    700: "crash",  # ILLEGAL_ADDRESS
    702: "time",  # LAUNCH_TIMEOUT
    709: "connection",  # CONTEXT_IS_DESTROYED
    710: "crash",  # ASSERT
    714: "crash",  # HARDWARE_STACK_ERROR
    715: "crash",  # ILLEGAL_INSTRUCTION
    716: "crash",  # MISALIGNED_ADDRESS
    717: "crash",  # INVALID_ADDRESS_SPACE
    718: "crash",  # INVALID_PC
    719: "crash",  # LAUNCH_FAILED
    999: "connection",  # UNKNOWN
}
"""Errors after which this process can use the device no more → DeviceLost's cause."""

_forked = False


def _after_fork() -> None:
    global _forked
    _forked = driver_api.cache_info().currsize > 0


os.register_at_fork(after_in_child=_after_fork)


class DriverApi:
    """`api.cuMemFree(...)` and the like, by their names in cuda.h without "_v2". Each raises where the driver refuses:
    MemoryError, DeviceLost, else TargetError, in one line. Raises TargetError where there is no driver."""

    def __init__(self) -> None:
        try:
            library = ctypes.CDLL(LIBRARY)
        except OSError as error:
            raise TargetError(f"this machine has no CUDA driver ({error})") from error
        self._functions: dict[str, Any] = {}
        for name, types in _FUNCTIONS.items():
            try:
                function = getattr(library, name)
            except AttributeError as error:
                raise TargetError(f"the CUDA driver of this machine is too old: {LIBRARY} has no {name}") from error
            function.argtypes, function.restype = types, c_int
            self._functions[name.removesuffix("_v2")] = function

    def __getattr__(self, name: str) -> Callable[..., None]:
        """Made when first asked for, and then an attribute."""
        try:
            function = self.__dict__["_functions"][name]
        except KeyError:
            raise AttributeError(name) from None
        refuse = self._refuse

        def checked(*arguments: Any) -> None:
            if code := function(*arguments):
                refuse(name, code)

        setattr(self, name, checked)
        return checked

    def quietly(self, name: str, *arguments: Any) -> None:
        """The same for freeing: a device that is lost, or a driver that was shut down, has freed already."""
        self._functions[name](*arguments)

    def _refuse(self, name: str, code: int) -> None:
        said = f"{name}: {self._text('cuGetErrorName', code)} ({self._text('cuGetErrorString', code)})"
        if code == OUT_OF_MEMORY:
            raise MemoryError(f"the CUDA device has too little memory, {said}")
        if code == NOT_INITIALIZED and _forked:
            raise TargetError(
                "CUDA was in use before this process was forked, and cannot be used here: fork first, or start a new "
                f"process ({said})"
            )
        if code in LOST:
            raise DeviceLost(f"the CUDA device was lost: {said}", LOST[code])
        raise TargetError(f"the CUDA driver refuses: {said}")

    def _text(self, name: str, code: int) -> str:
        found = c_char_p()
        self._functions[name](code, ctypes.byref(found))
        return found.value.decode(errors="replace") if found.value else f"error {code}"


@cache
def driver_api() -> DriverApi:
    """The one of this process, initialized. Raises TargetError, in one line, where there is none, or no device."""
    api = DriverApi()
    code = api._functions["cuInit"](0)
    if code == NO_DEVICE:
        raise TargetError("the CUDA driver of this machine finds no device")
    if code:
        api._refuse("cuInit", code)
    return api
