"""Compares a bundle with the exact reference, buffer by buffer, and says where the first difference is. numpy only.

Every buffer that the bundle writes is taken as it lies in memory, halo, tail channels and sums included, and compared
with what the reference's values are in that format. A float operator (one that TVM runs) has no exact definition: its
result is compared with a tolerance, and the reference goes on from the bundle's own, so that what follows stays exact.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from mpcompile.errors import ModelError, UsageError
from mpcompile.ir import formats
from mpcompile.ir.formats import Buffer
from mpcompile.ir.graph import FloatOp, Graph, Node
from mpcompile.ir.grid import Grid
from mpcompile.ir.layer import Layer
from mpcompile.ir.plan import Plan
from mpcompile.ir.planes import all_bits
from mpcompile.reference.run import model_inputs, run_node

FLOAT_RTOL, FLOAT_ATOL = 1e-4, 1e-5
"""Float operators: |got − expected| ≤ FLOAT_ATOL·max|expected| + FLOAT_RTOL·|expected|."""

OUTPUT = "output"
"""The "format" of what `run` gives back."""


class TracedBundle(Protocol):
    """What is compared: a bundle that is open, here or on a device."""

    @property
    def plan(self) -> Plan: ...

    def run(self, x: dict[str, np.ndarray], /) -> np.ndarray | dict[str, np.ndarray]:
        """float32 by name: the outputs by name, or the only one."""
        ...

    def run_traced(self, x: dict[str, np.ndarray], /) -> dict[str, dict[str, np.ndarray]]:
        """One sample; tensor → Buffer.key → that buffer as its layer wrote it."""
        ...


@dataclass
class ComparedBuffer:
    """One buffer over all samples. `first` names the first difference, "" where there is none.

    `format` is the buffer's, "(near)" beside it where a float operator wrote it and a tolerance applies, or OUTPUT.

    `steps` is the largest difference: in levels for planes and codes, else in the number's own unit.
    """

    node: str
    op: str
    tensor: str
    format: str
    elements: int = 0
    differing: int = 0
    steps: float = 0.0
    first: str = ""

    def add(self, elements: int, differing: int, steps: float, first: str) -> None:
        self.elements += elements
        self.differing += differing
        self.steps = max(self.steps, steps)
        self.first = self.first or first


@dataclass
class Report:
    """What `verify` found: `rows` in the network's order, one a buffer."""

    rows: list[ComparedBuffer] = field(default_factory=list)
    samples: int = 0

    @property
    def equal(self) -> bool:
        return not any(r.differing for r in self.rows)

    @property
    def summary(self) -> str:
        """One line."""
        inputs = f"{self.samples} input{'s' * (self.samples != 1)}"
        for r in self.rows:
            if r.differing:
                return (
                    f"first difference: {r.node} ({r.op}), {r.tensor}:{r.format}, {r.first}; {r.differing} of "
                    f"{r.elements} differ, by at most {r.steps:g}"
                )
        stored = [r for r in self.rows if r.format != OUTPUT]
        tensors = len({r.tensor for r in stored})
        return f"{len(stored)} buffers of {tensors} tensors and all outputs equal the reference on {inputs}"

    def table(self) -> tuple[list[str], list[list[str]]]:
        """(column names, rows of text) for people."""
        return (
            ["node", "operator", "tensor", "format", "elements", "differ", "first difference"],
            [[r.node, r.op, r.tensor, r.format, str(r.elements), str(r.differing), r.first] for r in self.rows],
        )

    def to_json(self) -> dict:
        """Plain numbers and strings; a largest difference that is infinite or NaN is None."""
        rows = [vars(r) | {"steps": r.steps if np.isfinite(r.steps) else None} for r in self.rows]
        return {"equal": self.equal, "samples": self.samples, "summary": self.summary, "rows": rows}


def agreement(codes_a: np.ndarray, codes_b: np.ndarray) -> tuple[float, int]:
    """(the fraction of equal codes, the largest step between two). Raises UsageError where the shapes differ."""
    if codes_a.shape != codes_b.shape:
        raise UsageError(f"codes of shape {codes_a.shape} cannot be compared with codes of shape {codes_b.shape}")
    steps = np.abs(codes_a.astype(np.int64) - codes_b.astype(np.int64))
    return (float((steps == 0).mean()), int(steps.max())) if steps.size else (1.0, 0)


def verify(graph: Graph, bundle: TracedBundle, inputs: Mapping[str, np.ndarray]) -> Report:
    """Runs both on every sample of `inputs` (float32 by name, with or without a batch axis) and compares every buffer.

    `graph` is the fused graph that the bundle was compiled from; of the bundle `plan`, `run` and `run_traced` are used.
    Raises UsageError at inputs that do not fit, ModelError where the bundle belongs to another model.
    """
    _same_model(graph, bundle)
    rows: dict[tuple[str, str], ComparedBuffer] = {}
    samples = samples_of(graph, inputs)
    for number, sample in enumerate(samples):
        said = f"input {number}, " if len(samples) > 1 else ""
        _SampleComparison(graph, bundle, sample, rows, said).compare()
    return Report(list(rows.values()), len(samples))


def samples_of(graph: Graph, inputs: Mapping[str, np.ndarray]) -> list[dict[str, np.ndarray]]:
    """One dict a sample. Raises UsageError naming the input that is missing, unknown or has another shape."""
    odd = sorted(set(inputs) ^ set(graph.inputs))
    if odd:
        raise UsageError(
            f"there is no array for the model's input {odd[0]}"
            if odd[0] in graph.inputs
            else f"the model has no input {odd[0]}: it has {', '.join(graph.inputs)}"
        )
    batches = {}
    for name in graph.inputs:
        x, shape = np.asarray(inputs[name], np.float32), graph.types[name].shape
        if x.shape != shape and x.shape[1:] != shape:
            raise UsageError(f"input {name} has the shape {x.shape}, the model takes {shape}, or several of them")
        batches[name] = x[None] if x.shape == shape else x
    counts = {name: len(x) for name, x in batches.items()}
    if len(set(counts.values())) != 1 or not min(counts.values()):
        raise UsageError(f"the inputs hold different numbers of samples, or none: {counts}")
    return [{name: x[i] for name, x in batches.items()} for i in range(counts[graph.inputs[0]])]


def _same_model(graph: Graph, bundle: TracedBundle) -> None:
    """Raises ModelError where the bundle's tensors are not the graph's."""
    for placed in bundle.plan.buffers:
        b = placed.buffer
        t = graph.types.get(b.tensor)
        if t is None:
            raise ModelError(
                f"the bundle holds a tensor {b.tensor}, which the model lacks: it was compiled from another model"
            )
        if np.prod(b.shape, dtype=np.int64) != np.prod(t.shape, dtype=np.int64) or b.grid not in (None, t.grid):
            raise ModelError(
                f"{b.key} is {b.shape} {_domain(b.grid)} in the bundle, {t.shape} {_domain(t.grid)} in "
                f"the model: the bundle was compiled from another model"
            )
    stored = {p.buffer.tensor for p in bundle.plan.buffers}
    missing = [(n, t) for n in graph.nodes if isinstance(n, Layer) for t in (*n.inputs, *n.outputs) if t not in stored]
    for node, t in missing:
        raise ModelError(f"the bundle holds no {t} of layer {node.name}: it was compiled from another model")


def _domain(grid: Grid | None) -> str:
    """What a message says of a tensor's values."""
    return "float32" if grid is None else f"on {grid}"


@dataclass
class _SampleComparison:
    """One sample through both; `rows` by (tensor, format) are added to."""

    graph: Graph
    bundle: TracedBundle
    inputs: dict[str, np.ndarray]
    rows: dict[tuple[str, str], ComparedBuffer]
    said: str

    def compare(self) -> None:
        self.trace = self.bundle.run_traced(self.inputs)
        self.buffers: dict[str, list[Buffer]] = {}
        for placed in self.bundle.plan.buffers:
            self.buffers.setdefault(placed.buffer.tensor, []).append(placed.buffer)
        # Results of float operators that the bundle does not store (TVM fuses them), and what is made of those.
        self.inexact: set[str] = set()
        self.tensors = model_inputs(self.graph, self.inputs)
        for name in self.graph.inputs:
            self._exactly(None, name)
        for node in self.graph.nodes:
            self.tensors |= run_node(node, self.graph, self.tensors)
            inexact = isinstance(node, FloatOp) or not self.inexact.isdisjoint(node.inputs)
            for name in node.outputs:
                self._exactly(node, name, but=self._nearly(node, name) if inexact else None)
        self._outputs()

    def _exactly(self, node: Node | None, name: str, but: Buffer | None = None) -> None:
        """Every stored form of a tensor (`but` one) against the reference's value in that form."""
        for buffer in self.buffers.get(name, ()):
            if buffer == but:
                continue
            expected = formats.encode(self.tensors[name].reshape(buffer.shape), buffer)
            self._add(node, name, buffer.key.removeprefix(f"{name}:"), *_compare(expected, self._raw(buffer), buffer))

    def _nearly(self, node: Node, name: str) -> Buffer | None:
        """A float operator's result with a tolerance; the reference goes on from the bundle's, in the buffer returned.

        None where the bundle stores no such buffer.
        """
        buffer = next((b for b in self.buffers.get(name, ()) if b.format in ("plain", "float")), None)
        if buffer is None:
            self.inexact.add(name)
            return None
        got = formats.decode(self._raw(buffer), buffer).reshape(self.tensors[name].shape)
        self._add(node, name, f"{buffer.format} (near)", *compare_float(self.tensors[name], got))
        self.tensors[name] = got
        return buffer

    def _outputs(self) -> None:
        """What the user gets from `run`, which is not traced."""
        results = self.bundle.run(self.inputs)
        if not isinstance(results, dict):
            results = {self.graph.outputs[0]: results}
        for name in self.graph.outputs:
            buffer, expected = Buffer(name, "plain", self.graph.types[name].shape), self.tensors[name]
            got = np.asarray(results[name], np.float32).reshape(buffer.shape)
            found = compare_float(expected, got) if name in self.inexact else _compare(expected, got, buffer)
            self._add(None, name, OUTPUT, *found)

    def _raw(self, buffer: Buffer) -> np.ndarray:
        """The bytes that the bundle wrote. Raises ModelError where they are not the buffer's."""
        raw = self.trace.get(buffer.tensor, {}).get(buffer.key)
        if raw is None:
            raise ModelError(f"the bundle never writes {buffer.key}, which its plan lists")
        if raw.shape != buffer.buffer_shape or raw.dtype != buffer.dtype:
            raise ModelError(
                f"{buffer.key} is {raw.dtype} {raw.shape} in the bundle, not {buffer.dtype} {buffer.buffer_shape}"
            )
        return raw

    def _add(
        self, node: Node | None, tensor: str, kind: str, elements: int, differing: int, steps: float, first: str
    ) -> None:
        name, op = (node.name, node.op) if node else (tensor, OUTPUT if kind == OUTPUT else "input")
        row = self.rows.setdefault((tensor, kind), ComparedBuffer(name, op, tensor, kind))
        row.add(elements, differing, steps, first and self.said + first)


def _compare(expected: np.ndarray, got: np.ndarray, buffer: Buffer) -> tuple[int, int, float, str]:
    """(elements, how many differ, the largest difference, where the first one is) of two buffers of one form."""
    want, have = _elements(expected, buffer), _elements(got, buffer)
    differs = (want != have) & ~((want != want) & (have != have))  # NaN equals NaN; −0 equals 0
    count = int(differs.sum())
    if not count:
        return want.size, 0, 0.0, ""
    at = np.unravel_index(differs.argmax(), differs.shape)
    unit = 1
    if buffer.format in ("planes", "codes"):
        want, have, unit = _values(want, buffer), _values(have, buffer), buffer.known_grid.step
    with np.errstate(invalid="ignore"):
        largest = np.abs(have[differs].astype(np.float64) - want[differs]).max() / unit
    return want.size, count, float(largest), f"{_place(at, buffer)}: expected {_say(want[at])}, got {_say(have[at])}"


def compare_float(expected: np.ndarray, got: np.ndarray) -> tuple[int, int, float, str]:
    """As `_compare`, for float32 arrays of one shape that may differ by the tolerance."""
    with np.errstate(invalid="ignore"):
        error = np.abs(got.astype(np.float64) - expected)
        largest = np.abs(expected[np.isfinite(expected)]).max(initial=0)
        near = error <= FLOAT_ATOL * largest + FLOAT_RTOL * np.abs(expected)
    far = ~(near | (got == expected) | (np.isnan(got) & np.isnan(expected)))
    if not far.any():
        return got.size, 0, 0.0, ""
    at = np.unravel_index(far.argmax(), far.shape)
    first = f"at {_index(at)}: expected {_say(expected[at])}, got {_say(got[at])}"
    return got.size, int(far.sum()), float(error[far].max()), first


def _elements(data: np.ndarray, buffer: Buffer) -> np.ndarray:
    """One number an element: [HP, WP, channels] (planes: their patterns), [HP, WP] for sums, as it is for plain."""
    if buffer.format != "planes":
        return data
    bits = all_bits(data, buffer.shape[0]).astype(np.int64)  # [HP, WP, P, channels]
    return (bits << np.arange(buffer.known_grid.planes)[:, None]).sum(2)


def _values(elements: np.ndarray, buffer: Buffer) -> np.ndarray:
    """What patterns (planes) or levels (codes) stand for, also those that are off the grid."""
    grid = buffer.known_grid
    if buffer.format == "codes":
        return grid.value(elements)
    planes = np.arange(grid.planes)
    return ((elements[..., None] >> planes) & 1) @ np.array(grid.plane_weights, np.int64) + grid.offset


def _place(at: tuple, buffer: Buffer) -> str:
    """An element's index in words: channel, y and x of the tensor; in the halo; past the last channel."""
    if buffer.format == "plain":
        return f"at {_index(at)}"
    channels, h, w = buffer.shape
    top, left = (0, 0) if buffer.format == "float" else buffer.halo[:2]
    y, x = int(at[0]) - top, int(at[1]) - left
    halo = "" if 0 <= y < h and 0 <= x < w else "in the halo, "
    if buffer.format == "sums":
        return f"{halo}y {y}, x {x}"
    c = int(at[2])
    tail = "" if c < channels else "past the last channel, "
    return f"{halo}{tail}channel {c}, y {y}, x {x}"


def _index(at: tuple) -> str:
    return "(" + ", ".join(str(int(i)) for i in at) + ")"


def _say(x) -> str:
    return f"{x:.9g}" if isinstance(x, np.floating) else str(int(x))
