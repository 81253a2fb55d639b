"""The CUDA devices of this machine, as the driver describes them; the one that bundles run on."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from functools import cache

from mpcompile.errors import TargetError
from mpcompile.runtime.cuda.driver_api import DriverApi, driver_api

MULTIPROCESSORS, INTEGRATED, L2, MAJOR, MINOR, SHARED = 16, 18, 38, 75, 76, 97
"""Of CUdevice_attribute; the last is MAX_SHARED_MEMORY_PER_BLOCK_OPTIN."""


@dataclass(frozen=True)
class CudaDevice:
    """`number`: the driver's, of those that CUDA_VISIBLE_DEVICES leaves. `arch`: of its cubins ("sm_87"). `bus`: its PCI
    address, by which NVML knows it. `integrated`: its memory is the host's. `shared_bytes`: of shared memory that a
    block can have."""

    number: int
    name: str
    arch: str
    bus: str
    memory_bytes: int
    l2_bytes: int
    shared_bytes: int
    multiprocessors: int
    integrated: bool


def devices() -> tuple[CudaDevice, ...]:
    """All that the driver lets this process use; no context is made. Raises TargetError where there is no driver, or no
    device."""
    api, count = driver_api(), ctypes.c_int()
    api.cuDeviceGetCount(ctypes.byref(count))
    return tuple(_describe(api, number) for number in range(count.value))


@cache
def device() -> CudaDevice:
    """The one that bundles run on: the driver's first. Raises TargetError, in one line, where there is none."""
    found = devices()
    if not found:
        raise TargetError("the CUDA driver of this machine finds no device")
    return found[0]


def device_or_none() -> CudaDevice | None:
    """The same; None where there is none, or where its driver does not work."""
    try:
        return device()
    except TargetError:
        return None


def driver_version() -> str:
    """The CUDA that the driver is of, "12.4"."""
    found = ctypes.c_int()
    driver_api().cuDriverGetVersion(ctypes.byref(found))
    return f"{found.value // 1000}.{found.value % 1000 // 10}"


def _describe(api: DriverApi, number: int) -> CudaDevice:
    handle, memory = ctypes.c_int(), ctypes.c_size_t()
    name, bus = ctypes.create_string_buffer(256), ctypes.create_string_buffer(32)
    api.cuDeviceGet(ctypes.byref(handle), number)
    api.cuDeviceGetName(name, len(name), handle)
    api.cuDeviceGetPCIBusId(bus, len(bus), handle)
    api.cuDeviceTotalMem(ctypes.byref(memory), handle)

    def attribute(which: int) -> int:
        found = ctypes.c_int()
        api.cuDeviceGetAttribute(ctypes.byref(found), which, handle)
        return found.value

    return CudaDevice(
        number,
        name.value.decode(errors="replace"),
        f"sm_{attribute(MAJOR)}{attribute(MINOR)}",
        bus.value.decode(errors="replace"),
        memory.value,
        attribute(L2),
        attribute(SHARED),
        attribute(MULTIPROCESSORS),
        bool(attribute(INTEGRATED)),
    )
