"""What the CPU of this machine can do, as the kernel reports it. Standard library only; works without TVM."""

from __future__ import annotations

import ctypes
import os
import platform
from functools import lru_cache
from pathlib import Path

CPUINFO = Path("/proc/cpuinfo")
MODEL = Path("/proc/device-tree/model")
ARM = ("aarch64", "armv7l", "armv6l", "arm")
AT_HWCAP = 16
HWCAP = {
    "aarch64": "fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm jscvt fcma lrcpc dcpop sha3 "
    "sm3 sm4 asimddp sha512 sve asimdfhm dit uscat ilrcpc flagm ssbs sb paca pacg",
    "armv7l": "swp half thumb 26bit fastmult fpa vfp edsp java iwmmxt crunch thumbee neon vfpv3 vfpv3d16 tls vfpv4 idiva "
    "idivt vfpd32 lpae evtstrm",
}
"""Names of the bits of AT_HWCAP, from the lowest on, as /proc/cpuinfo spells them (Linux, asm/hwcap.h)."""


def arch() -> str:
    """ "x86_64", "aarch64", …"""
    return {"AMD64": "x86_64", "arm64": "aarch64"}.get(platform.machine(), platform.machine())


@lru_cache(maxsize=1)
def _fields() -> dict[str, str]:
    """The first processor's fields in /proc/cpuinfo; empty where there is no such file, or where it is of another
    architecture: an emulator may show that of the machine that it runs on."""
    try:
        first = CPUINFO.read_text().split("\n\n", 1)[0]
    except OSError:
        return {}
    found = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in first.splitlines())}
    return found if ("vendor_id" in found) == (arch() == "x86_64") else {}


def features() -> frozenset[str]:
    """Feature flags by the names of /proc/cpuinfo ("avx2", "avx512_vnni", …). On ARM they are what the kernel tells each
    process by itself, which is right under an emulator, too."""
    if arch() in HWCAP:
        told = ctypes.CDLL(None).getauxval
        told.argtypes, told.restype = [ctypes.c_ulong], ctypes.c_ulong
        bits = told(AT_HWCAP)
        return frozenset(name for i, name in enumerate(HWCAP[arch()].split()) if bits >> i & 1)
    return frozenset(_fields().get("flags", "").split())


def name() -> str:
    """Marketing name, for messages; on ARM the board's."""
    if arch() in ARM:
        try:
            return MODEL.read_text().strip("\0\n ")
        except OSError:
            pass
    return _fields().get("model name") or platform.processor() or arch()


def vendor() -> tuple[str, int, int]:
    """(vendor id, family, model), on ARM (implementer, architecture, part); ("", 0, 0) where the kernel does not tell."""
    found = _fields()
    if arch() in ARM:
        version = found.get("CPU architecture", "0")
        return (
            found.get("CPU implementer", ""),
            int(version) if version.isdigit() else 8,
            int(found.get("CPU part", "0"), 16),
        )
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
