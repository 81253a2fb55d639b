"""The tensor arguments of a plan: views of its blocks, in a device's memory."""

from __future__ import annotations

from typing import Any

import numpy as np

from mpcompile.errors import ModelError
from mpcompile.ir.plan import Arg, Plan, Port
from mpcompile.runtime.aligned import ALIGNMENT
from mpcompile.runtime.memory import Block, Memory, View


class Arguments:
    """Workspace, weights, and a block for each model input and output; the views of them that a plan names.

    `weights` is a block of `memory`. The workspace begins as zeros. Raises ModelError where there is no room for what
    the plan wants.
    """

    def __init__(self, memory: Memory, plan: Plan, weights: Block):
        self.memory = memory
        self._views: dict[Arg, Any] = {}
        self._ports: dict[str, tuple[Port, ...]] = {"input": plan.inputs, "output": plan.outputs}
        try:
            self._blocks = {"workspace": memory.alloc(plan.workspace_bytes), "weights": weights}
            self._port_blocks = {
                space: [memory.alloc(4 * _size(port.shape)) for port in ports] for space, ports in self._ports.items()
            }
            memory.put(self.view(Arg("workspace", 0, "uint8", (plan.workspace_bytes,))), 0)
        except MemoryError as error:
            raise ModelError(
                f"there is no memory for a workspace of {plan.workspace_bytes} bytes and for "
                f"{len(plan.inputs)} inputs and {len(plan.outputs)} outputs"
            ) from error
        self.inputs = [self.view(Arg("input", i, "float32", p.shape)) for i, p in enumerate(plan.inputs)]
        self.outputs = [self.view(Arg("output", i, "float32", p.shape)) for i, p in enumerate(plan.outputs)]

    def view(self, arg: Arg) -> View:
        """The memory of an argument; the same view for equal ones.

        Raises ModelError where it does not lie in its block: TVM's kernels check neither bounds nor alignment.
        """
        if arg not in self._views:
            self._views[arg] = self._port(arg) if arg.space in self._ports else self._part(arg)
        return self._views[arg]

    def _port(self, arg: Arg) -> View:
        ports = self._ports[arg.space]
        if not 0 <= arg.offset < len(ports):
            raise ModelError(f"the plan names {arg.space} {arg.offset}, and there are {len(ports)}")
        shape = ports[arg.offset].shape
        if _dtype(arg) != np.float32 or min(arg.shape, default=1) < 0 or _size(arg.shape) != _size(shape):
            raise ModelError(f"the plan uses {arg.space} {arg.offset} {shape} as {arg.dtype} {arg.shape}")
        return self.memory.view(self._port_blocks[arg.space][arg.offset], 0, "float32", arg.shape)

    def _part(self, arg: Arg) -> View:
        if arg.space not in self._blocks:
            raise ModelError(f"the plan names a space {arg.space!r}")
        block, dtype = self._blocks[arg.space], _dtype(arg)
        end = arg.offset + _size(arg.shape) * dtype.itemsize
        if arg.offset < 0 or arg.offset % ALIGNMENT or end > block.nbytes or min(arg.shape, default=1) < 0:
            raise ModelError(
                f"the plan puts {arg.dtype} {arg.shape} at byte {arg.offset} of the {arg.space}, {block.nbytes} bytes"
            )
        return self.memory.view(block, arg.offset, dtype, arg.shape)


def _dtype(arg: Arg) -> np.dtype:
    try:
        dtype = np.dtype(arg.dtype)
    except TypeError as error:
        raise ModelError(f"the plan names a dtype {arg.dtype!r}") from error
    if dtype.kind not in "fiub":
        raise ModelError(f"the plan names a dtype {arg.dtype!r}")
    return dtype


def _size(shape: tuple[int, ...]) -> int:
    """How many elements; Python's integers never wrap around."""
    found = 1
    for extent in shape:
        found *= extent
    return found
