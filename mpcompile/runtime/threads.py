"""How many threads TVM's kernels use. The only place that touches TVM's thread pool.

What TVM 0.27 does, and what follows from it:

* every Python thread that calls a kernel gets a pool of its own, made at the first use, whose capacity never changes;
* `runtime.config_threadpool(mode, n, cpus)` sets that capacity to len(cpus), makes the pool where there is none, and
  uses n of it;
* while a thread has no pool, each parallel launch asks TVM_NUM_THREADS, and with 1 runs the kernel where it stands.

So for one thread we make no pool (no idle, spinning workers), and for more we make one that has room for every CPU, of
which n are used: any later change of n works.
"""

from __future__ import annotations

import os
import threading

from mpcompile.errors import UsageError
from mpcompile.runtime.tvm_runtime import tvm_ffi
from mpcompile.targets import cpu

SPIN_COUNT = "20000"
"""How often an idle worker looks for work before it sleeps: some ms. TVM's 300000 burns a core for 50 ms after every
run, which slows whatever comes next; within a network the next kernel comes in microseconds."""
SHARE_ALL_CPUS = -3
"""kSpecifyThreadShareAllCore of tvm/runtime/threading_backend.h: workers are not pinned to one CPU each."""

_here = threading.local()


def resolve(threads: int | None) -> int:
    """None → the physical cores that this process may use. Raises UsageError where the number makes no sense here."""
    if threads is None:
        return cpu.cores()
    if isinstance(threads, bool) or not isinstance(threads, int) or threads < 1:
        raise UsageError(f"threads must be a whole number from 1 up, not {threads!r}")
    if threads > len(cpu.allowed()):
        raise UsageError(f"{threads} threads asked for, but this process may use {len(cpu.allowed())} CPUs")
    return threads


def use(threads: int) -> None:
    """Kernels that the calling Python thread runs from now on use `threads` threads, itself included."""
    if getattr(_here, "threads", None) == threads:
        return
    if threads == 1 and not getattr(_here, "pool", False):
        os.environ["TVM_NUM_THREADS"] = "1"
    else:
        os.environ.setdefault("TVM_THREAD_POOL_SPIN_COUNT", SPIN_COUNT)
        cpus = [str(i) for i in cpu.allowed()]
        tvm_ffi().get_global_func("runtime.config_threadpool")(SHARE_ALL_CPUS, threads, cpus)
        _here.pool = True
    _here.threads = threads
