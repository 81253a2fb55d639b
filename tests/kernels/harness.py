"""Runs one fused layer's kernel and compares every stored byte of every output with the reference."""

from __future__ import annotations

import numpy as np
import tvm

from mpcompile.compiler.backend import tvm_dict
from mpcompile.compiler.library import compiled
from mpcompile.ir import formats
from mpcompile.ir.formats import Buffer
from mpcompile.ir.graph import Graph, TensorType
from mpcompile.ir.layer import Layer
from mpcompile.kernels.layer import lower
from mpcompile.kernels.tvm_names import buffer_of
from mpcompile.reference.run import run
from mpcompile.schedules import architecture_of
from mpcompile.targets import cpu, load_target
from tests.kernels.guarded import guarded


def can_run(target: str) -> bool:
    """Whether this CPU has all that code for `target` may use."""
    return cpu.features().issuperset(load_target(target).features)


LEVELS = tuple(level for level in ("x86-64-v2", "x86-64-v3", "x86-64-v4") if can_run(level))
"""Those of x86 that run here."""


def check(layer: Layer, types: dict[str, TensorType], values: dict, families, target, inputs, outputs, tile=None):
    """`values`: q or float32 of each input tensor; `inputs`, `outputs`: its stored forms.

    Fails at the first byte that differs.
    """
    target = load_target(target) if isinstance(target, str) else target
    graph = Graph([layer], types, list(values), [r.name for r in layer.results])
    expected = run(graph, values)
    lowered = lower(layer, inputs, outputs, families, architecture_of(target), tile)
    stored = [formats.encode(values[b.tensor], b) for b in lowered.inputs]
    parameters = [buffer_of(lowered.func, i) for i in range(len(lowered.func.params))]
    arrays = [a.view(str(p.dtype)).reshape([int(n) for n in p.shape]) for a, p in zip(stored, parameters)]
    results = [np.full(b.buffer_shape, 0x5A, b.dtype) for b in lowered.outputs]  # nothing may be left unwritten
    ran = _run(lowered.func, target, [*arrays, *lowered.constants, *results])
    for buffer, got in zip(lowered.outputs, ran[-len(results) :]):
        want = formats.encode(expected[buffer.tensor], buffer)
        if got.tobytes() != want.tobytes():
            at = np.argwhere(got.view("uint8") != want.view("uint8"))[0]
            raise AssertionError(
                f"{buffer.key} differs first at {at.tolist()} of {got.shape}: "
                f"{(got != want).mean():.1%} of all elements; interior "
                f"{_interior(got, want, buffer)}"
            )
    return lowered


def _run(func, target, arrays: list) -> list:
    """The arrays after a call with them: here, or, for another architecture, under an emulator."""
    if target.kind == "cuda":
        from mpcompile.compiler.cuda.backend import source_of
        from tests.cuda.emulate import Emulated

        places = [guarded(a) for a in arrays]
        Emulated(source_of({"main": func}, target))("main", places)
        return places
    if target.arch != cpu.arch():
        from tests.arm import emulator

        return emulator.run(func, target, arrays)
    function = compiled({"main": func}, tvm_dict(target, 2))["main"]
    tensors = [tvm.runtime.from_dlpack(guarded(a)) for a in arrays]
    function(*tensors)
    return [t.numpy() for t in tensors]


def _interior(got, want, buffer: Buffer) -> str:
    if buffer.format in ("plain", "float"):
        return "float"
    return f"{(buffer.interior(got) != buffer.interior(want)).mean():.1%}"


def stored(name: str, shape, grid=None, forms=("plain",), halo=(0, 0, 0, 0)) -> list[Buffer]:
    """Buffers of a tensor: forms such as "planes", "codes", "planes+sums", "float", "plain"."""
    found = []
    for form in forms:
        base, _, sums = form.partition("+")
        inner = halo if base in ("planes", "codes") else (0, 0, 0, 0)
        found.append(Buffer(name, base, tuple(shape), grid, inner))
        if sums:
            found.append(Buffer(name, "sums", tuple(shape), grid, inner, base))
    return found
