"""An open bundle: what the user runs, times and looks at."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mpcompile.errors import ModelError, TargetError, UsageError
from mpcompile.ir.plan import Plan, Port, random_input
from mpcompile.runtime.archive import read_archive, tvm_version
from mpcompile.runtime.driver import driver_of
from mpcompile.runtime.shared_weights import joined
from mpcompile.runtime.threads import resolve
from mpcompile.runtime.variants import Variant, pick, variants_of

if TYPE_CHECKING:
    from mpcompile.latency.measure import Timing
    from mpcompile.latency.timer import Timer
    from mpcompile.runtime.executor import Executor

ROUNDS = 11


class Bundle:
    """A compiled network, ready to run. Made by open_bundle; close it, or use it in a `with`."""

    def __init__(self, path: Path, manifest: dict, variant: Variant, executor: Executor):
        self.path = path
        self.manifest = manifest
        self.variant = variant
        self.plan: Plan = variant.plan
        self._executor: Executor | None = executor

    # -- what it is ------------------------------------------------------------------------------------
    @property
    def inputs(self) -> tuple[Port, ...]:
        """Name, shape (without batch) and type of each input, as the model has them."""
        return self.plan.inputs

    @property
    def outputs(self) -> tuple[Port, ...]:
        return self.plan.outputs

    @property
    def layers(self) -> list[dict]:
        """What the compiler wrote about each layer: name, source nodes, families, tiles, grids, MACs."""
        return self.variant.layers

    @property
    def threads(self) -> int:
        return self._executor.threads if self._executor else 0

    # -- running it ------------------------------------------------------------------------------------
    def run(self, x: np.ndarray | Mapping[str, np.ndarray]) -> np.ndarray | dict[str, np.ndarray]:
        """One array where the model has one input (output), else a dict by name; outputs have the model's types.

        Each array has the port's shape, or a batch axis of any size before it; the outputs have it too. Inputs are
        converted to float32, in which the network computes, as numpy does. Raises UsageError naming the input that does
        not fit, ModelError where a kernel refuses what the plan calls it with.
        """
        from mpcompile.runtime.executor import named_inputs

        live, inputs = self._live(), named_inputs(self.plan, x)
        try:
            results = live.run(inputs)
        except ModelError as error:
            raise ModelError(f"{self.path}: {error}") from error
        results = [y if p.dtype == "float32" else y.astype(p.dtype) for p, y in zip(self.outputs, results)]
        if len(results) == 1:
            return results[0]
        return {port.name: result for port, result in zip(self.outputs, results)}

    def run_traced(self, x: np.ndarray | Mapping[str, np.ndarray]) -> dict[str, dict[str, np.ndarray]]:
        """One sample; tensor → Buffer.key → a copy of that buffer as its layer wrote it, halo included."""
        from mpcompile.runtime.executor import named_inputs

        live, inputs = self._live(), named_inputs(self.plan, x)
        try:
            return live.run_traced(inputs)
        except ModelError as error:
            raise ModelError(f"{self.path}: {error}") from error

    # -- timing it, with the project's one measurer (latency/measure.py) -----------------------------------
    def bench(self, seconds: float = 1.0, x: np.ndarray | Mapping[str, np.ndarray] | None = None) -> Timing:
        """Median and spread of one sample (x, or normal random numbers) through the network, in about `seconds`."""
        from mpcompile.latency.measure import measure

        return measure({self.path.name: self.timer(x)}, rounds=ROUNDS, min_time=seconds / ROUNDS)[self.path.name]

    def profile(
        self, seconds: float = 1.0, x: np.ndarray | Mapping[str, np.ndarray] | None = None
    ) -> dict[str, Timing]:
        """Layer → median and spread of its calls, in the network's order, measured in turn in about `seconds`."""
        from mpcompile.latency.measure import measure

        timers = self.layer_timers(x)
        return (
            dict(measure(timers, rounds=ROUNDS, min_time=seconds / ROUNDS / max(1, len(timers))).timings)
            if timers
            else {}
        )

    def timer(self, x: np.ndarray | Mapping[str, np.ndarray] | None = None) -> Timer:
        """A measurer's timer of whole runs, from the input in the bundle's own buffer to the output in it."""
        executor = self._live()
        executor.fill(self._sample(x))
        return executor.timer(range(len(self.plan.calls)))

    def layer_timers(self, x: np.ndarray | Mapping[str, np.ndarray] | None = None) -> dict[str, Timer]:
        """Layer → a measurer's timer of its calls, in order. The network has run once: buffers hold real data."""
        executor = self._live()
        executor.fill(self._sample(x))
        executor.timer(range(len(self.plan.calls))).seconds(1)
        calls: dict[str, list[int]] = {}
        for i, call in enumerate(self.plan.calls):
            calls.setdefault(call.layer, []).append(i)
        return {layer: executor.timer(indices) for layer, indices in calls.items()}

    def _sample(self, x) -> list[np.ndarray]:
        from mpcompile.runtime.executor import named_inputs

        if x is None:
            rng = np.random.default_rng(0)
            return [random_input(rng, p.shape, p.dtype) for p in self.inputs]
        arrays = named_inputs(self.plan, x)
        for port, array in zip(self.inputs, arrays):
            if array.shape not in (port.shape, (1, *port.shape)):
                raise UsageError(f"input {port.name} must be one sample of {port.shape}, got {array.shape}")
        return arrays

    # -- the end of it ---------------------------------------------------------------------------------
    def close(self) -> None:
        """Frees its memory; a closed bundle does not run."""
        self._executor = None

    def __enter__(self) -> Bundle:
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def _live(self) -> Executor:
        if self._executor is None:
            raise UsageError(f"{self.path} was closed")
        return self._executor


def open_bundle(path: str | os.PathLike, threads: int | None = None, *, variant: str | None = None) -> Bundle:
    """Checks every hash, picks the best variant for this machine, and only then loads code: that variant's.

    `threads`: None for the physical cores that this process may use. `variant`: the name of one, instead of the best
    that fits. Raises UsageError (no such file or variant, bad `threads`), ModelError (damaged, or another format),
    TargetError (no variant for this machine, another TVM).
    """
    threads = resolve(threads)
    contents = read_archive(path)
    chosen = pick(path, variants_of(path, contents.manifest), variant)
    driver = driver_of(chosen)
    if driver.needs_tvm:
        _check_tvm(path, str(contents.manifest.get("tvm")))

    from mpcompile.runtime.executor import Executor

    memory = driver.memory()
    try:
        functions = driver.load(bytes(contents.members[chosen.library]), memory)
        weights = joined(chosen.weights, contents.members, memory)
        executor = Executor(driver, memory, functions, chosen.plan, weights, threads)
    except ModelError as error:
        raise ModelError(f"{path}: {error}") from error
    return Bundle(Path(path), contents.manifest, chosen, executor)


def _check_tvm(path: str | os.PathLike, built_with: str) -> None:
    """Code and runtime agree on an ABI that TVM may change in any minor version."""
    here = tvm_version()
    if here and here.split(".")[:2] != built_with.split(".")[:2]:
        raise TargetError(
            f"{path} was built with TVM {built_with}, this machine has {here}: compile the model again, or "
            f"pip install apache-tvm=={built_with}"
        )
