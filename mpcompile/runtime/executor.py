"""Follows a plan: prebuilt arguments over the blocks of a memory, one library call after another."""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable, Iterable, Mapping

import numpy as np

from mpcompile.errors import ModelError, UsageError
from mpcompile.ir.plan import Arg, Plan, Port
from mpcompile.latency.timer import Timer
from mpcompile.runtime.arguments import Arguments
from mpcompile.runtime.driver import Driver
from mpcompile.runtime.machine import Step
from mpcompile.runtime.memory import Block, Memory, View

WIDE, EXACT = ("int32", "int64"), 1 << 24
"""Types of inputs that hold more than float32 does, and up to where it holds every integer."""
KERNEL_ERRORS = (RuntimeError, ValueError, TypeError, AssertionError)
"""What TVM's kernels raise where they are called with what they do not take."""

_executors: weakref.WeakSet[Executor] = weakref.WeakSet()


def _after_fork() -> None:
    """Nobody in a forked child will release a lock that another thread of its parent held."""
    for executor in _executors:
        executor._lock = threading.Lock()


os.register_at_fork(after_in_child=_after_fork)


class Executor:
    """Runs a compiled network, one sample at a time.

    `functions(name)` gives a library function, `weights` is a block of `memory`; both are the driver's. All buffers are
    made here, once; a call costs nothing but the call. One workspace, so one run at a time: a lock makes other threads
    wait. Raises ModelError where the plan and the blocks do not fit together.
    """

    def __init__(
        self,
        driver: Driver,
        memory: Memory,
        functions: Callable[[str], Callable],
        plan: Plan,
        weights: Block,
        threads: int,
    ):
        self.plan = plan
        self.threads = threads
        self.memory = memory
        self._driver = driver
        self._lock = threading.Lock()
        _executors.add(self)
        self._arguments = Arguments(memory, plan, weights)
        # Looked up once: a small network runs in microseconds.
        self._inputs, self._outputs = self._arguments.inputs, self._arguments.outputs
        self._put, self._get, self._call = memory.put, memory.get, driver.call
        self._shapes = [port.shape for port in plan.inputs]
        self._steps: list[Step] = []
        found: dict[str, Callable] = {}
        for call in plan.calls:
            if call.function not in found:
                found[call.function] = functions(call.function)
            self._steps.append((found[call.function], tuple(self.view(arg).argument for arg in call.args)))
        self._whole = driver.record(self._steps, memory)

    def view(self, arg: Arg) -> View:
        """The memory of an argument, for `memory.put` and `memory.get`."""
        return self._arguments.view(arg)

    # -- running -----------------------------------------------------------------------------------
    def run(self, inputs: list[np.ndarray]) -> list[np.ndarray]:
        """float32 arrays in the order of plan.inputs, with or without a batch axis, to fresh outputs likewise."""
        batch = None if [x.shape for x in inputs] == self._shapes else self._batch(inputs)
        with self._lock:
            if batch is None:
                return self._call(self.threads, self._run_one, inputs)
            return self._call(self.threads, self._run_batch, batch, inputs)

    def _run_one(self, inputs: list[np.ndarray]) -> list[np.ndarray]:
        self._sample(inputs)
        get = self._get
        return [get(view) for view in self._outputs]

    def _run_batch(self, batch: int, inputs: list[np.ndarray]) -> list[np.ndarray]:
        results = [np.empty((batch, *p.shape), np.float32) for p in self.plan.outputs]
        for n in range(batch):
            self._sample([x[n] for x in inputs])
            for result, view in zip(results, self._outputs):
                self._get(view, result[n, ...])
        return results

    def run_traced(self, inputs: list[np.ndarray]) -> dict[str, dict[str, np.ndarray]]:
        """One sample; a copy of every buffer as it was right after it was written: tensor → Buffer.key → raw array."""
        if self._batch(inputs) not in (None, 1):
            raise UsageError("run_traced takes one sample")
        written: dict[int, list] = {}
        for placed in self.plan.buffers:
            written.setdefault(placed.written, []).append(placed)
        trace: dict[str, dict[str, np.ndarray]] = {}

        def keep(i: int) -> None:
            for placed in written.get(i, ()):
                trace.setdefault(placed.buffer.tensor, {})[placed.buffer.key] = self.memory.get(self.view(placed.arg))

        def traced() -> None:
            self._fill(inputs)
            keep(-1)
            for i, (function, args) in enumerate(self._steps):
                try:
                    function(*args)
                except KERNEL_ERRORS as error:
                    raise self._refused(args, error) from error
                keep(i)

        with self._lock:
            self._call(self.threads, traced)
        return trace

    def fill(self, inputs: list[np.ndarray]) -> None:
        """Puts one sample into the input buffers, for timers."""
        with self._lock:
            self._fill(inputs)
            self.memory.sync()

    def timer(self, calls: Iterable[int]) -> Timer:
        """Of running these calls of the plan, on whatever the buffers hold."""
        steps = self._driver.record([self._steps[i] for i in calls], self.memory)
        stopwatch = self._driver.stopwatch(self.memory)
        mark, between = stopwatch.mark, stopwatch.between

        def repeated(n: int) -> float:
            start = mark()
            for _ in range(n):
                for function, args in steps:
                    function(*args)
            return between(start, mark())

        def seconds(n: int) -> float:
            with self._lock:
                return self._call(self.threads, repeated, n)

        return Timer(seconds, self._driver.wait_clock(self.threads))

    def _sample(self, inputs: list[np.ndarray]) -> None:
        put = self._put
        for view, x in zip(self._inputs, inputs):
            put(view, x)
        args: tuple = ()
        try:
            for function, args in self._whole:
                function(*args)
        except KERNEL_ERRORS as error:
            raise self._refused(args, error) from error

    def _fill(self, inputs: list[np.ndarray]) -> None:
        for view, x, port in zip(self._inputs, inputs, self.plan.inputs):
            self._put(view, x.reshape(port.shape))

    def _refused(self, args: tuple, error: Exception) -> ModelError:
        """What is said of a kernel that was called with `args`: kernels check dtypes and shapes themselves."""
        layer = next(call.layer for call, step in zip(self.plan.calls, self._steps) if step[1] is args)
        said = " ".join(str(error).split()) or type(error).__name__
        return ModelError(f"layer {layer}: its kernel refuses what the plan calls it with: {said}")

    def _batch(self, inputs: list[np.ndarray]) -> int | None:
        """None where no input has a batch axis, else its size, the same for all."""
        sizes = {}
        for port, x in zip(self.plan.inputs, inputs):
            if x.shape == port.shape:
                sizes[port.name] = None
            elif x.shape[1:] == port.shape and x.ndim == len(port.shape) + 1:
                sizes[port.name] = x.shape[0]
            else:
                raise UsageError(
                    f"input {port.name} must be {_shape(port.shape)} or {_shape(('N', *port.shape))}, "
                    f"got {_shape(x.shape)}"
                )
        if len(set(sizes.values())) > 1:
            told = ", ".join(f"{name}: {'none' if n is None else n}" for name, n in sizes.items())
            raise UsageError(f"the inputs have different batch sizes ({told})")
        return next(iter(sizes.values()), None)


def named_inputs(plan: Plan, x: np.ndarray | Mapping[str, np.ndarray]) -> list[np.ndarray]:
    """What a user hands in → float32 arrays in the order of plan.inputs. Raises UsageError naming the input."""
    names = [p.name for p in plan.inputs]
    if isinstance(x, Mapping):
        missing, unknown = [n for n in names if n not in x], [n for n in x if n not in names]
        if missing or unknown:
            which = f"lacks {', '.join(missing)}" if missing else f"has {', '.join(map(str, unknown))}"
            raise UsageError(f"the model's inputs are {', '.join(names)}; what was given {which}")
        return [_as_float32(port, x[port.name]) for port in plan.inputs]
    if len(names) != 1:
        raise UsageError(f"the model has {len(names)} inputs: pass a dict with {', '.join(names)}")
    return [_as_float32(plan.inputs[0], x)]


def _as_float32(port: Port, x: object) -> np.ndarray:
    array = np.asarray(x)
    if array.dtype.kind not in "fiub":
        raise UsageError(f"input {port.name} must hold real numbers, got dtype {array.dtype}")
    if port.dtype in WIDE and array.size and (array.min() < -EXACT or array.max() > EXACT):
        raise UsageError(
            f"input {port.name} holds integers beyond ±{EXACT}, which the network, computing in float32, cannot tell apart"
        )
    return array.astype(np.float32, copy=False)


def _shape(dims: tuple) -> str:
    return f"({', '.join(map(str, dims))}{',' if len(dims) == 1 else ''})"
