"""The distinct layers of a network, each a task: what is tuned, and how its candidates are built."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Protocol

import numpy as np

from mpcompile.compiler.backend import build_library
from mpcompile.compiler.layer_library import FUNCTION, LayerKernel
from mpcompile.compiler.passes.base import apply_all
from mpcompile.compiler.passes.choose_formats import ChooseFormats
from mpcompile.compiler.passes.to_layers import TO_LAYERS
from mpcompile.errors import lack_of_memory
from mpcompile.ir.graph import Graph
from mpcompile.ir.layer import Layer
from mpcompile.ir.plan import Plan
from mpcompile.kernels.architecture import Space, Tile
from mpcompile.kernels.layer import Lowered, lower, scheduled
from mpcompile.records.key import layer_key, text_of, title
from mpcompile.runtime.device import Kernel
from mpcompile.schedules import architecture_of
from mpcompile.targets import Target


@dataclass(eq=False)
class Task:
    """A layer's shape, bits and forms. `default`: its kernel under the default schedule; `layers`: all of that form."""

    key: dict
    default: Lowered
    space: Space
    target: Target
    layers: list[str] = field(default_factory=list)

    @property
    def text(self) -> str:
        return text_of(self.key)

    @property
    def title(self) -> str:
        return title(self.key)

    @property
    def default_tile(self) -> Tile:
        return self.tile_from_json(self.default.tile)

    def tile_from_json(self, data: dict) -> Tile:
        """Raises TypeError or ValueError where `data` is no tile of the task's architecture."""
        return self.default.architecture.tile_from_json(data)

    @cached_property
    def _plan(self) -> tuple[Plan, np.ndarray]:
        """The same under any schedule."""
        return LayerKernel(self.default, "").plan()

    def kernel(self, library: bytes) -> Kernel:
        """What a device times, of a schedule that was built."""
        return Kernel(library, *self._plan, self.target.kind, self.target.arch, self.target.features)

    def lowered(self, tile: Tile) -> Lowered:
        """The layer's kernel under another schedule."""
        func = scheduled(self.default.spec, self.default.architecture, tile)
        return replace(self.default, func=func, tile=tile.to_json(), tile_source={"from": "given"})


def tasks_of(graph: Graph, target: Target, threads: int) -> list[Task]:
    """The distinct fused layers of a model's graph, in its order, in the forms that compiling it would choose."""
    fused = apply_all(graph, TO_LAYERS)
    chosen = ChooseFormats(target).apply(fused)
    architecture = architecture_of(target)
    tasks: dict[str, Task] = {}
    for node in fused.nodes:
        if not isinstance(node, Layer):
            continue
        inputs = {t: chosen.buffers[t] for t in node.inputs}
        outputs = {t: chosen.buffers[t] for t in node.outputs}
        lowered = lower(node, inputs, outputs, chosen.families.get(node.name, {}), architecture)
        key = layer_key(lowered.spec)
        if text_of(key) not in tasks:
            space = lowered.architecture.space(lowered.spec, threads)
            tasks[text_of(key)] = Task(key, lowered, space, target)
        tasks[text_of(key)].layers.append(node.name)
    return list(tasks.values())


class Builder(Protocol):
    """What makes libraries of kernels."""

    def build(self, kernels: Sequence[Lowered]) -> list[bytes | Exception]:
        """lib.so of each, in which it is layer_library.FUNCTION; an exception in place of one that does not build."""
        ...


class LocalBuilder:
    """Builds side by side in a pool of threads that is kept: TVM lets go of Python's lock, so no process is started."""

    def __init__(self, target: Target, workers: int):
        self.target = target
        self.pool = ThreadPoolExecutor(workers)

    def build(self, kernels: Sequence[Lowered]) -> list[bytes | Exception]:
        return list(self.pool.map(self._build, kernels))

    def _build(self, kernel: Lowered) -> bytes | Exception:
        try:
            return build_library({FUNCTION: kernel.func}, self.target)
        except RuntimeError as error:  # TVM's, of one candidate: the others go on
            if lack := lack_of_memory(error):  # which is not the candidate's fault, and not to be written down
                raise lack from error
            return error

    def close(self) -> None:
        self.pool.shutdown(wait=False, cancel_futures=True)
