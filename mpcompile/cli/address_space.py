"""The least that a process must be allowed (ulimit -v). Below it, libraries written in C end the process as they load, each
with words and a status of its own, so it is asked before."""

from __future__ import annotations

import resource

from mpcompile.errors import ResourceError

LEAST = 160 << 20
"""Bytes of address space that Python, numpy and TVM's runtime take, on one thread."""
LEAST_COMPILING = 1280 << 20
"""With TVM's compiler, onnx, and a thread's stack and heap for each of two cores."""


def check_address_space(least: int = LEAST) -> None:
    """Raises ResourceError where this process is allowed less."""
    allowed = resource.getrlimit(resource.RLIMIT_AS)[0]
    if allowed != resource.RLIM_INFINITY and allowed < least:
        raise ResourceError(
            f"out of memory: at least {least >> 20} MiB of address space are needed; ulimit -v allows {allowed >> 20} MiB"
        )
