"""What the CPU of this machine can do, as the kernel reports it. Standard library only; works without TVM."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path

CPUINFO = Path("/proc/cpuinfo")


def arch() -> str:
    """ "x86_64", "aarch64", …"""
    return {"AMD64": "x86_64", "arm64": "aarch64"}.get(platform.machine(), platform.machine())


@lru_cache(maxsize=1)
def _fields() -> dict[str, str]:
    """The first processor's fields in /proc/cpuinfo; empty where there is no such file."""
    try:
        first = CPUINFO.read_text().split("\n\n", 1)[0]
    except OSError:
        return {}
    return {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in first.splitlines())}


def features() -> frozenset[str]:
    """Feature flags by the names of /proc/cpuinfo ("avx2", "avx512_vnni", …)."""
    found = _fields()
    return frozenset((found.get("flags") or found.get("Features") or "").split())


def lacking(arch_: str, wanted: Iterable[str]) -> list[str]:
    """Those features of `wanted` that this CPU lacks; all of them where it is of another architecture."""
    here = features() if arch_ == arch() else frozenset()
    return [f for f in wanted if f not in here]


def name() -> str:
    """Marketing name, for messages."""
    found = _fields()
    return found.get("model name") or found.get("Model") or platform.processor() or arch()


def vendor() -> tuple[str, int, int]:
    """(vendor id, family, model); ("", 0, 0) where the kernel does not tell."""
    found = _fields()
    return found.get("vendor_id", ""), int(found.get("cpu family", 0)), int(found.get("model", 0))


def allowed() -> list[int]:
    """The CPU numbers that this process may run on."""
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else list(range(os.cpu_count() or 1))


def cores() -> int:
    """Physical cores that this process may use: hyper-threads of one core count once."""
    groups = set()
    for i in allowed():
        try:
            siblings = Path(f"/sys/devices/system/cpu/cpu{i}/topology/thread_siblings_list").read_text().strip()
        except OSError:
            siblings = str(i)
        groups.add(siblings)
    return max(1, len(groups))


def cache_kib(level: int, kind: str = "Data") -> int:
    """KiB of the first core's cache of that level; 0 where the kernel does not tell. L2 and up are "Unified"."""
    for index in sorted(Path("/sys/devices/system/cpu/cpu0/cache").glob("index*")):
        try:
            here = (int((index / "level").read_text()), (index / "type").read_text().strip())
            size = (index / "size").read_text().strip()
        except (OSError, ValueError):
            continue
        if here == (level, kind):
            return int(size.rstrip("KM")) * (1024 if size.endswith("M") else 1)
    return 0


def clock_mhz() -> int:
    """The highest clock that the kernel knows of, else the present one; 0 where it does not tell."""
    try:
        return int(Path("/sys/devices/system/cpu/cpu0/cpufreq/cpuinfo_max_freq").read_text()) // 1000
    except (OSError, ValueError):
        return int(float(_fields().get("cpu MHz", 0)))
