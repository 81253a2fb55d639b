"""Schedule spaces, one file an architecture."""

from __future__ import annotations

from collections.abc import Callable

from mpcompile.errors import TargetError
from mpcompile.kernels.architecture import Architecture
from mpcompile.targets import Target
from mpcompile.targets.registry import Registry


def architecture_of(target: Target) -> Architecture:
    """The schedules of a target. Raises TargetError for an architecture that has none yet."""
    return SCHEDULES.of(target.kind)(target)


def _of_cpu(target: Target) -> Architecture:
    if target.arch == "x86_64":
        from mpcompile.schedules.x86 import X86

        return X86.of(target)
    if target.arch in ("aarch64", "armv7l"):
        from mpcompile.schedules.arm_cpu import Arm

        return Arm.of(target)
    raise TargetError(
        f"target {target.name}: there are no schedules for {target.arch} yet; supported: x86_64, aarch64, armv7l"
    )


def _of_cuda(target: Target) -> Architecture:
    from mpcompile.schedules.cuda import Cuda

    return Cuda.of(target)


SCHEDULES: Registry[Callable] = Registry("schedules for devices of kind", {"cpu": _of_cpu, "cuda": _of_cuda})
"""Kind of device → (target → its architecture)."""
