"""NVIDIA's management library, libnvidia-ml.so.1, by ctypes: clock, heat, and how long they limited a device.

Names and numbers are nvml.h's. What a device does not tell reads as 0 or None: a measurement goes on without.
"""

from __future__ import annotations

import ctypes
from ctypes import c_uint, c_uint64, c_void_p
from functools import cache

LIBRARY = "libnvidia-ml.so.1"
CLOCK_SM, TEMPERATURE_GPU = 1, 0
POLICY_POWER, POLICY_THERMAL = 0, 1


class _Violation(ctypes.Structure):
    """nvmlViolationTime_t: µs since the epoch, ns of violation since the driver was loaded."""

    _fields_ = [("reference", c_uint64), ("violated", c_uint64)]


class Nvml:
    """Raises OSError where there is no such library, or where it does not start."""

    def __init__(self) -> None:
        self._library = ctypes.CDLL(LIBRARY)
        if code := self._library.nvmlInit_v2():
            raise OSError(f"nvmlInit_v2: {code}")

    def device(self, bus: str) -> c_void_p | None:
        """The device at that PCI address ("0000:01:00.0"); None where NVML knows none there."""
        found = c_void_p()
        return None if self._library.nvmlDeviceGetHandleByPciBusId_v2(bus.encode(), ctypes.byref(found)) else found

    def clock(self, device: c_void_p) -> int:
        """MHz of the multiprocessors, now."""
        found = c_uint()
        return 0 if self._library.nvmlDeviceGetClockInfo(device, CLOCK_SM, ctypes.byref(found)) else found.value

    def temperature(self, device: c_void_p) -> float | None:
        """°C of the chip."""
        found = c_uint()
        code = self._library.nvmlDeviceGetTemperature(device, TEMPERATURE_GPU, ctypes.byref(found))
        return None if code else float(found.value)

    def slowed_by_heat(self, device: c_void_p) -> float:
        """Seconds so far."""
        return self._violated(device, POLICY_THERMAL)

    def slowed_by_power(self, device: c_void_p) -> float:
        """Seconds so far."""
        return self._violated(device, POLICY_POWER)

    def _violated(self, device: c_void_p, policy: int) -> float:
        found = _Violation()
        code = self._library.nvmlDeviceGetViolationStatus(device, policy, ctypes.byref(found))
        return 0.0 if code else found.violated * 1e-9


@cache
def nvml() -> Nvml | None:
    """The one of this process; None where there is none."""
    try:
        return Nvml()
    except (OSError, AttributeError):
        return None
