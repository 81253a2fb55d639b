"""Follows a plan: one aligned workspace, prebuilt arguments, one library call after another."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping
from time import perf_counter

import numpy as np
import tvm_ffi

from mpcompile.errors import ModelError, UsageError
from mpcompile.ir.plan import Arg, Plan
from mpcompile.runtime import threads as tvm_threads
from mpcompile.runtime.archive import ALIGNMENT, aligned_empty


class Executor:
    """Runs a compiled network, one sample at a time.

    `functions(name)` gives a library function, `weights` is the uint8 block. All buffers are made here, once; a call
    costs nothing but the call. One workspace, so one run at a time: a lock makes other threads wait. Raises ModelError
    where the plan and the blocks do not fit together: TVM's kernels check neither bounds nor alignment.
    """

    def __init__(self, functions: Callable[[str], Callable], plan: Plan, weights: np.ndarray, threads: int):
        self.plan = plan
        self.threads = threads
        self._lock = threading.Lock()
        self._blocks = {"workspace": aligned_empty(plan.workspace_bytes), "weights": weights}
        self._blocks["workspace"][:] = 0
        self._ports = {
            "input": [_float32(p.shape) for p in plan.inputs],
            "output": [_float32(p.shape) for p in plan.outputs],
        }
        views: dict[Arg, object] = {}
        self._steps: list[tuple[Callable, tuple]] = []
        found: dict[str, Callable] = {}
        for call in plan.calls:
            if call.function not in found:
                found[call.function] = functions(call.function)
            for arg in call.args:
                if arg not in views:
                    views[arg] = _tensor(self.view(arg))
            self._steps.append((found[call.function], tuple(views[arg] for arg in call.args)))

    def view(self, arg: Arg) -> np.ndarray:
        """The memory of an argument as an array of its shape and dtype; not a copy."""
        try:
            dtype = np.dtype(arg.dtype)
        except TypeError as error:
            raise ModelError(f"the plan names a dtype {arg.dtype!r}") from error
        if arg.space in self._ports:
            if not 0 <= arg.offset < len(self._ports[arg.space]):
                raise ModelError(
                    f"the plan names {arg.space} {arg.offset}, and there are {len(self._ports[arg.space])}"
                )
            array = self._ports[arg.space][arg.offset]
            if array.dtype != dtype or array.size != int(np.prod(arg.shape, dtype=np.int64)):
                raise ModelError(f"the plan uses {arg.space} {arg.offset} {array.shape} as {arg.dtype} {arg.shape}")
            return array.reshape(arg.shape)
        if arg.space not in self._blocks:
            raise ModelError(f"the plan names a space {arg.space!r}")
        block = self._blocks[arg.space]
        end = arg.offset + int(np.prod(arg.shape, dtype=np.int64)) * dtype.itemsize
        if arg.offset < 0 or arg.offset % ALIGNMENT or end > block.size or min(arg.shape, default=1) < 0:
            raise ModelError(
                f"the plan puts {arg.dtype} {arg.shape} at byte {arg.offset} of the {arg.space}, {block.size} bytes"
            )
        return block[arg.offset : end].view(dtype).reshape(arg.shape)

    # -- running -----------------------------------------------------------------------------------
    def run(self, inputs: list[np.ndarray]) -> list[np.ndarray]:
        """float32 arrays in the order of plan.inputs, with or without a batch axis, to fresh outputs likewise."""
        batch = self._batch(inputs)
        with self._lock:
            tvm_threads.use(self.threads)
            if batch is None:
                self._sample(inputs)
                return [out.copy() for out in self._ports["output"]]
            results = [np.empty((batch, *p.shape), np.float32) for p in self.plan.outputs]
            for n in range(batch):
                self._sample([x[n] for x in inputs])
                for result, out in zip(results, self._ports["output"]):
                    result[n] = out
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
                trace.setdefault(placed.buffer.tensor, {})[placed.buffer.key] = self.view(placed.arg).copy()

        with self._lock:
            tvm_threads.use(self.threads)
            self._fill([x.reshape(p.shape) for x, p in zip(inputs, self.plan.inputs)])
            keep(-1)
            for i, (function, args) in enumerate(self._steps):
                function(*args)
                keep(i)
        return trace

    def fill(self, inputs: list[np.ndarray]) -> None:
        """Puts one sample into the input buffers, for timers."""
        with self._lock:
            self._fill([x.reshape(p.shape) for x, p in zip(inputs, self.plan.inputs)])

    def timer(self, calls: Iterable[int]) -> Callable[[int], float]:
        """n → the seconds of running these calls of the plan n times, on whatever the buffers hold."""
        from mpcompile.latency.waiting import waits_of

        steps = [self._steps[i] for i in calls]

        def seconds(n: int) -> float:
            with self._lock:
                tvm_threads.use(self.threads)
                start = perf_counter()
                for _ in range(n):
                    for function, args in steps:
                        function(*args)
                return perf_counter() - start

        seconds.waits = waits_of(self.threads)  # the measurer's clock of waiting
        return seconds

    def _sample(self, inputs: list[np.ndarray]) -> None:
        self._fill(inputs)
        for function, args in self._steps:
            function(*args)

    def _fill(self, inputs: list[np.ndarray]) -> None:
        for here, x in zip(self._ports["input"], inputs):
            np.copyto(here, x)

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
        return [_as_float32(name, x[name]) for name in names]
    if len(names) != 1:
        raise UsageError(f"the model has {len(names)} inputs: pass a dict with {', '.join(names)}")
    return [_as_float32(names[0], x)]


def _as_float32(name: str, x: object) -> np.ndarray:
    array = np.asarray(x)
    if array.dtype.kind not in "fiub":
        raise UsageError(f"input {name} must hold real numbers, got dtype {array.dtype}")
    return array.astype(np.float32, copy=False)


def _float32(shape: tuple[int, ...]) -> np.ndarray:
    return aligned_empty(int(np.prod(shape, dtype=np.int64)) * 4).view(np.float32).reshape(shape)


def _tensor(view: np.ndarray):
    """A TVM tensor over the same memory."""
    return tvm_ffi.from_dlpack(view, require_alignment=ALIGNMENT, require_contiguous=True)


def _shape(dims: tuple) -> str:
    return f"({', '.join(map(str, dims))}{',' if len(dims) == 1 else ''})"
