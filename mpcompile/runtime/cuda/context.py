"""The context that this process has on its CUDA device, and its handles, which are given back with their owners."""

from __future__ import annotations

import ctypes
import weakref
from functools import cache
from typing import Any

from mpcompile.runtime.cuda.devices import CudaDevice, device
from mpcompile.runtime.cuda.driver_api import DriverApi, driver_api

NON_BLOCKING = 1
"""CU_STREAM_NON_BLOCKING: the stream waits for nobody else's work."""


class Context:
    """The device's primary context, which other libraries in this process (torch) share."""

    def __init__(self, chosen: CudaDevice):
        self.device = chosen
        self.api: DriverApi = driver_api()
        self._handle = ctypes.c_void_p()
        self.api.cuDevicePrimaryCtxRetain(ctypes.byref(self._handle), chosen.number)

    def enter(self) -> DriverApi:
        """The driver API, whose calls in this thread are now about this device: a thread begins with none, and others may
        have changed it."""
        self.api.cuCtxSetCurrent(self._handle)
        return self.api

    def handle(self, owner: object, create: str, destroy: str, *arguments: Any) -> ctypes.c_void_p:
        """What `create` makes, which `destroy` takes back when nothing refers to `owner` any more."""
        found = ctypes.c_void_p()
        getattr(self.enter(), create)(ctypes.byref(found), *arguments)
        self.give_back(owner, destroy, found)
        return found

    def give_back(self, owner: object, destroy: str, found: Any) -> None:
        """Has `destroy` called with it when nothing refers to `owner` any more; not where the process ends before."""
        weakref.finalize(owner, self._destroy, destroy, found).atexit = False

    def _destroy(self, name: str, found: Any) -> None:
        self.api.quietly("cuCtxSetCurrent", self._handle)
        self.api.quietly(name, found)


@cache
def context() -> Context:
    """The one of this process. Raises TargetError where the machine has no device, MemoryError where it has no room."""
    return Context(device())
