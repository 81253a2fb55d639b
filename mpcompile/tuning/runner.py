"""What times built kernels: a pool of devices, each with a share of them. Costs are ratios to the default's time beside
them on the same device, so shares of several devices, of hours apart, or of a machine that slows down, can be compared.

A kernel that crashes its device, never ends or takes all memory takes the others of its share with it. They are then
measured again one by one, so that no other fails with it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from mpcompile.errors import DeviceLost, TargetError, UsageError
from mpcompile.latency.measure import Measurement, Timing
from mpcompile.remote.connection import RemoteDevice
from mpcompile.remote.pool import DevicePool
from mpcompile.remote.sandbox import SandboxedDevice
from mpcompile.runtime.device import Device, Kernel

MIN_TIME = 0.0003
"""Seconds of one sample."""
STIRRED = 1 << 20
"""Bytes read between two runs where a device does not tell the size of its second-level cache."""
BASE = "default"
LEAST_LIMIT, LIMIT = 30.0, 500.0
"""Seconds that a measurement may take on a device; and how many times the default's time, a kernel and round: a
schedule that is ten times slower on a disturbed machine still ends in time."""


@dataclass(frozen=True)
class Timed:
    """A kernel's time, and that of `base` in the same measurement, on the same device."""

    timing: Timing
    base: Timing

    @property
    def cost(self) -> float:
        return self.timing.seconds / self.base.seconds


@dataclass(frozen=True)
class Failed:
    """A kernel that was not measured, with the reason in one line."""

    why: str


Outcome = Timed | Failed
Done = Callable[[Mapping[str, Outcome], Measurement | None], None]
"""(what became of some kernels, and of BASE beside them; the measurement that tells)"""


class Runner(Protocol):
    """Devices of one kind. `elsewhere`: not on this machine, so that building here does not disturb them."""

    threads: int
    elsewhere: bool

    @property
    def identity(self) -> Mapping[str, str]:
        """What their times depend on beside the kernel: CPU, threads, what lies in the caches."""
        ...

    def time(
        self,
        base: Kernel,
        kernels: Mapping[str, Kernel],
        rounds: int,
        done: Done,
        *,
        threads: int | None = None,
        together: bool = False,
    ) -> None:
        """Times each kernel in turn with `base`; `done` hears of each once or, where a device turns out to have been
        slow, again. together: all in one measurement. Raises TargetError where `base` itself cannot be measured."""
        ...


class PoolRunner:
    """Runs on the devices of `pool`, on `threads` threads.

    As in a network: inputs just written, weights and code out of the second-level cache.
    """

    def __init__(self, pool: DevicePool, threads: int, elsewhere: bool):
        self.pool, self.threads, self.elsewhere = pool, threads, elsewhere
        self.stirred = pool.about.l2 or STIRRED
        self.identity = {"cpu": pool.about.cpu, "threads": str(threads), "stirred": str(self.stirred)}
        self._seconds: dict[bytes, float] = {}
        """Of the default schedules that were measured."""

    def time(
        self,
        base: Kernel,
        kernels: Mapping[str, Kernel],
        rounds: int,
        done: Done,
        *,
        threads: int | None = None,
        together: bool = False,
    ) -> None:
        def work(device: Device, share: Sequence[str]) -> Measurement | Failed:
            asked = {BASE: base, **{name: kernels[name] for name in share}}
            if isinstance(device, RemoteDevice | SandboxedDevice) and base.library in self._seconds:
                device.limit = LEAST_LIMIT + LIMIT * self._seconds[base.library] * rounds * len(asked)
            return device.time_kernels(
                asked, threads or self.threads, stirred=self.stirred, rounds=rounds, min_time=MIN_TIME
            )

        suspects: list[str] = []

        def tell(share: Sequence[str], result: Measurement | Failed | DeviceLost) -> None:
            if isinstance(result, Measurement):
                self._seconds[base.library] = result[BASE].seconds
                done({name: Timed(result[name], result[BASE]) for name in (BASE, *share)}, result)
                return
            failed = result if isinstance(result, Failed) else Failed(one_line(result))
            if not share:
                raise TargetError(f"the default schedule cannot be measured: {failed.why}")
            if len(share) == 1:
                done({share[0]: failed}, None)
            else:
                suspects.extend(share)

        names = list(kernels)
        count = 1 if together else max(1, min(self.pool.devices_at_once, len(names)))
        self._map(work, [names[i::count] for i in range(count)], tell)
        if suspects:
            self._map(work, [[]], tell)  # is it one of them, or the default?
            self._map(work, [[name] for name in dict.fromkeys(suspects)], tell)

    def _map(self, work, shares: list, tell) -> None:
        self.pool.map(_failures_as_results(work), shares, tell)


def one_line(error: Exception) -> str:
    """What an exception says."""
    return " ".join(str(error).split())


def _failures_as_results(work):
    """What a kernel raises on a device is that kernel's; a device that is lost is the pool's to replace, but for one
    that starts a fresh process by itself."""

    def safe(device: Device, share):
        try:
            return work(device, share)
        except UsageError:
            raise
        except DeviceLost as error:
            if error.by_work and isinstance(device, SandboxedDevice):
                return Failed(one_line(error))
            raise
        except Exception as error:
            return Failed(f"{device.name}: {one_line(error)}")

    return safe
