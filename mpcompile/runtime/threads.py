"""How many threads TVM's kernels use, and on which of the process's. The only place that touches TVM's thread pool.

What TVM 0.27 does, and what follows from it:

* every Python thread that calls a kernel gets a pool of its own, made at the first use, whose capacity never changes, and
  which outlives the thread: threads that come and go would leave a pool each;
* `runtime.config_threadpool(mode, n, cpus)` sets that capacity to len(cpus), makes the pool where there is none, and
  uses n of it;
* while a thread has no pool, each parallel launch asks TVM_NUM_THREADS, and with 1 runs the kernel where it stands;
* a forked child has the pool's memory but none of its workers: a launch there waits for ever.

So for one thread we make no pool (no idle, spinning workers), and for more we make one that has room for every CPU, of
which n are used: any later change of n works. The first thread that needs a pool *owns* one, and calls kernels itself;
what others run is handed to a *helper*, a thread of ours with a pool, of which there are as many as ever ran at once. A
forked child begins without an owner and without helpers; the thread that forked may have a dead pool, and then hands
over as well.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from concurrent.futures import Future, wait
from queue import SimpleQueue
from typing import Any, TypeVar

from mpcompile.errors import UsageError
from mpcompile.runtime.tvm_runtime import tvm_ffi
from mpcompile.targets import cpu

SPIN_COUNT = "20000"
"""How often an idle worker looks for work before it sleeps: some ms. TVM's 300000 burns a core for 50 ms after every
run, which slows whatever comes next; within a network the next kernel comes in microseconds."""
SHARE_ALL_CPUS = -3
"""kSpecifyThreadShareAllCore of tvm/runtime/threading_backend.h: workers are not pinned to one CPU each."""

Result = TypeVar("Result")


class _Here(threading.local):
    """Of a thread. `pool`: the process in which it made its pool, 0 for none; `threads`: as was last configured."""

    pool = 0
    threads = 0


class _Process:
    """What a forked child must not share."""

    def __init__(self):
        self.id = os.getpid()
        self.lock = threading.Lock()
        self.owned = False
        self.idle: list[_Helper] = []


_here = _Here()
_process = _Process()


def _after_fork() -> None:
    global _process
    _process = _Process()


os.register_at_fork(after_in_child=_after_fork)


def resolve(threads: int | None) -> int:
    """None → the physical cores that this process may use. Raises UsageError where the number makes no sense here."""
    if threads is None:
        return cpu.cores()
    if isinstance(threads, bool) or not isinstance(threads, int) or threads < 1:
        raise UsageError(f"threads must be a whole number from 1 up, not {threads!r}")
    if threads > len(cpu.allowed()):
        raise UsageError(f"{threads} threads asked for, but this process may use {len(cpu.allowed())} CPUs")
    return threads


def call(threads: int, function: Callable[..., Result], *arguments: Any) -> Result:
    """`function(*arguments)`, where kernels use `threads` threads, the one that calls them included. Raises what it
    raises."""
    if _here.pool == _process.id or (_here.pool == 0 and (threads == 1 or _becomes_owner())):
        _configure(threads)
        return function(*arguments)
    with _process.lock:
        helper = _process.idle.pop() if _process.idle else _Helper()
    return helper.call(threads, function, arguments)


def _becomes_owner() -> bool:
    process = _process
    with process.lock:
        mine, process.owned = not process.owned, True
    return mine


def _configure(threads: int) -> None:
    """Kernels that the calling thread runs from now on use so many threads."""
    if _here.threads == threads:
        return
    if threads == 1 and not _here.pool:
        os.environ["TVM_NUM_THREADS"] = "1"
    else:
        os.environ.setdefault("TVM_THREAD_POOL_SPIN_COUNT", SPIN_COUNT)
        cpus = [str(i) for i in cpu.allowed()]
        tvm_ffi().get_global_func("runtime.config_threadpool")(SHARE_ALL_CPUS, threads, cpus)
        _here.pool = _process.id
    _here.threads = threads


class _Helper:
    """A thread with a pool, which runs one call at a time and is idle in between."""

    def __init__(self):
        self._work: SimpleQueue = SimpleQueue()
        threading.Thread(target=self._serve, name="mpcompile-kernels", daemon=True).start()

    def call(self, threads: int, function: Callable[..., Result], arguments: tuple) -> Result:
        answer: Future[Result] = Future()
        self._work.put((threads, function, arguments, answer))
        try:
            return answer.result()
        except (
            BaseException
        ):  # maybe an interrupt: the kernels that run are waited for, as they are where they run here
            wait([answer])
            raise

    def _serve(self) -> None:
        process = _process
        while True:
            threads, function, arguments, answer = self._work.get()
            result, error = None, None
            try:
                _configure(threads)
                result = function(*arguments)
            except BaseException as raised:
                error = raised
            with process.lock:
                process.idle.append(self)
            if error is None:
                answer.set_result(result)
            else:
                answer.set_exception(error)
            del function, arguments, answer, result, error  # a closed bundle's memory is not kept by the last call
