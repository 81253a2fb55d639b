"""Whether a file was read as an outside executor computes it: every tensor of the graph that the file has too, each made
from that executor's own tensors, so that one flipped rounding does not spread."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx

from mpcompile.errors import ModelError
from mpcompile.frontend.names import FileTensor, SourceFile
from mpcompile.ir.graph import Graph, Quantize, Quantizer
from mpcompile.reference.compare import compare_float, samples_of
from mpcompile.reference.interpret import interpret
from mpcompile.witness.executors import AUTO, Arrays, CannotRun, choose, start

FLIPPED = 1e-4
"""Of a tensor's codes, so many may lie one step apart, and one in any case: executors sum in float."""
TIE = 1e-5
"""Of a step: how near to the middle between two levels float32 arithmetic may take a value to be in it, or beside it."""
OFF_GRID = 0.01
"""Of a step: how far from a grid's value a float32 may lie that stands for it."""


@dataclass
class ComparedTensor:
    """One tensor of the file over all samples. `node`, `op`: what writes it there. `kind`: "codes" or "float".

    `steps` is the largest difference, in levels for codes; `first` names the first one, "" where there is none. `ties`: of
    those that differ, which are the rounding of a value in the middle between two levels.
    `impossible`: the executor has a shape, or values, that the tensor cannot have as it was read.
    """

    tensor: str
    node: str
    op: str
    kind: str
    elements: int = 0
    differing: int = 0
    ties: int = 0
    steps: float = 0.0
    first: str = ""
    impossible: bool = False

    @property
    def wrong(self) -> bool:
        """Whether there are more or greater differences than two executors may have."""
        if self.kind == "float":
            return self.impossible or self.differing > 0
        flipped = self.differing - self.ties
        return self.impossible or self.steps > 1 or flipped > max(1, int(FLIPPED * self.elements))

    def add(
        self, elements: int, differing: int, steps: float, first: str, impossible: bool = False, ties: int = 0
    ) -> None:
        self.elements += elements
        self.differing += differing
        self.ties += ties
        self.steps = max(self.steps, steps)
        self.first = self.first or first
        self.impossible |= impossible

    @property
    def counted(self) -> str:
        """How many differ, for people."""
        return f"{self.differing}, {self.ties} at ties" if self.ties else str(self.differing)

    def to_json(self) -> dict:
        """A largest difference that is infinite or NaN is None."""
        return vars(self) | {"steps": self.steps if np.isfinite(self.steps) else None, "wrong": self.wrong}


@dataclass
class Reading:
    """What comparing a file with an executor found. `against`: the executor, "" where none was asked for; `unchecked` says
    why it was not compared, "" where it was. `rows`: in the file's order. `compared` of the `tensors` that the graph's
    nodes write are tensors of the file too."""

    against: str
    unchecked: str = ""
    samples: int = 0
    compared: int = 0
    tensors: int = 0
    rows: list[ComparedTensor] = field(default_factory=list)

    @property
    def equal(self) -> bool:
        """False where a difference was found."""
        return not any(r.wrong for r in self.rows)

    @property
    def summary(self) -> str:
        """One line."""
        if self.unchecked:
            return f"not checked against {self.against}: {self.unchecked}"
        if not self.against:
            return "not checked against an outside executor: none was asked for"
        for r in self.rows:
            if r.wrong:
                return (
                    f"first difference: node {r.node} ({r.op}), {r.tensor}, {r.first}; {r.differing} "
                    f"of {r.elements} differ, by at most {r.steps:g}"
                )
        codes = [r for r in self.rows if r.kind == "codes"]
        flipped = sum(r.differing for r in codes)
        return (
            f"read as {self.against} computes it: {self.compared} of {self.tensors} tensors, "
            f"{sum(r.elements for r in codes)} codes{f' ({flipped} one step apart)' if flipped else ''}, on "
            f"{self.samples} input{'s' * (self.samples != 1)}"
        )

    def table(self) -> tuple[list[str], list[list[str]]]:
        """(column names, rows of text) for people."""
        return (
            ["node of the file", "operator", "tensor", "compared as", "elements", "differ", "first difference"],
            [[r.node, r.op, r.tensor, r.kind, str(r.elements), r.counted, r.first] for r in self.rows],
        )

    def to_json(self) -> dict:
        """Plain numbers and strings; "equal" is None where nothing was compared."""
        return {
            "equal": self.equal if self.rows else None,
            "against": self.against,
            "unchecked": self.unchecked,
            "samples": self.samples,
            "compared": self.compared,
            "tensors": self.tensors,
            "summary": self.summary,
            "rows": [r.to_json() for r in self.rows],
        }


def check_reading(source: SourceFile, inputs: Mapping[str, np.ndarray], witness: str = AUTO) -> Reading:
    """Runs the file in `witness` (see executors.choose) and compares the graph that was read with it.

    inputs: by name, with or without a batch axis. Raises UsageError at inputs that do not fit; where `witness` names an
    executor, MissingDependency where that is not installed, ModelError where it does not run the file: chosen by itself,
    the Reading says so.
    """
    path, graph = Path(source.path), source.graph
    model = onnx.load(path, load_external_data=False)
    executor = choose(witness, model)
    if executor is None:
        return Reading("")
    if not executor.installed:
        return Reading(executor.title, f"it is not installed ({executor.install})")
    pairs = _shared(source, model)
    samples, batch = samples_of(graph, inputs), graph.batch or 1
    try:
        if source.halves:
            raise CannotRun("computes float16 or bfloat16 as such, which is read as float32")
        sizes = {name: graph.types[name].shape for name in graph.inputs}
        running = start(executor, path, list(dict.fromkeys(t.file for t, _ in pairs)), batch, sizes)
        for at in range(0, len(samples), batch):
            some = samples[at : at + batch]
            found = running(_fed(source, some + some[-1:] * (batch - len(some))))
            for i, sample in enumerate(some):
                theirs = {name: a[i] for name, a in found.items() if np.ndim(a) and len(a) == batch}
                if batch == 1:
                    theirs |= _without_batch(graph, pairs, found)
                _compare(graph, pairs, sample, theirs, f"input {at + i}, " if len(samples) > 1 else "")
    except CannotRun as error:
        if witness != AUTO:
            raise ModelError(f"{path}: {executor.title} {error}") from error
        return Reading(executor.title, f"it {error}")
    written = {t for n in graph.nodes for t in n.outputs}
    compared = len(written & {t.graph for t, _ in pairs})
    return Reading(executor.title, "", len(samples), compared, len(written), [row for _, row in pairs])


def _shared(source: SourceFile, model: onnx.ModelProto) -> list[tuple[FileTensor, ComparedTensor]]:
    """The tensors that nodes of the file write, in their order, each with its row; codes only where no real tensor of the
    file stands for the same."""
    writers = {o: (i, n) for i, n in enumerate(model.graph.node) for o in n.output if o}
    there = [t for t in source.tensors if t.file in writers]
    real = {t.graph for t in there if not t.codes}
    codes = {t.graph: t for t in there if t.codes and t.graph not in real}
    found = []
    for t in sorted([*(t for t in there if not t.codes), *codes.values()], key=lambda t: writers[t.file][0]):
        index, node = writers[t.file]
        kind = "codes" if source.graph.types[t.graph].quantizer else "float"
        found.append((t, ComparedTensor(t.file, node.name or f"{node.op_type}_{index}", node.op_type, kind)))
    return found


def _without_batch(graph: Graph, pairs: list[tuple[FileTensor, ComparedTensor]], found: Arrays) -> Arrays:
    """What an executor found that has no batch, in the shapes that it was read in: scalars, which are read with the axes of
    what they scale, and tensors whose axis 0 is another."""
    shapes = {t.file: graph.types[t.graph].shape for t, _ in pairs}
    numbers = {n: a.reshape(shapes[n]) for n, a in found.items() if a.ndim == 0 and set(shapes[n]) <= {1}}
    return numbers | {n: a for n, a in found.items() if a.ndim and len(a) != 1 and a.shape == shapes[n]}


def _fed(source: SourceFile, samples: list[Arrays]) -> Arrays:
    """Samples as one batch, of the types that the file wants. Raises CannotRun where a type does not hold their values."""
    fed = {}
    for name, dtype in source.inputs.items():
        x = np.stack([sample[name] for sample in samples])
        fed[name] = x.astype(dtype)
        if not np.array_equal(fed[name], x, equal_nan=True):
            raise CannotRun(f"cannot be fed: input {name} takes {dtype}, and the array given holds other values")
    return fed


def _compare(
    graph: Graph, pairs: list[tuple[FileTensor, ComparedTensor]], sample: Arrays, theirs: Arrays, said: str
) -> None:
    """One sample, and the executor's tensors without their batch axis; the rows are added to."""
    quantizing = {t: n.inputs[0] for n in graph.nodes if isinstance(n, Quantize) for t in n.outputs}
    requantized = set(quantizing.values())
    given: Arrays = {}
    real = [t.real(theirs[t.file]) if t.file in theirs else None for t, _ in pairs]
    for (t, _), value in zip(pairs, real):
        kind = graph.types[t.graph]
        if value is None or value.shape != kind.shape or t.graph in given:
            continue
        if kind.quantizer and _on_grid(value, kind.quantizer).all():
            given[t.graph] = (np.rint(value / kind.quantizer.scale) * kind.quantizer.scale).astype(np.float32)
        elif (
            kind.quantizer is None or t.graph not in requantized
        ):  # what is off its grid has no codes to quantize again
            given[t.graph] = value
    mine = interpret(graph, sample, given)
    for (t, row), value in zip(pairs, real):
        kind = graph.types[t.graph]
        if value is None or value.shape != kind.shape:
            held = "no batch axis" if value is None else f"the shape {list(value.shape)}"
            size = int(np.prod(kind.shape))
            row.add(size, size, np.inf, f"{said}it has {held} there, was read as {list(kind.shape)}", True)
        elif kind.quantizer:
            differs, steps, first, lacks = _compare_codes(value, mine[t.graph], kind.quantizer)
            ties = 0
            if differs.any() and (read := quantizing.get(t.graph)):
                ties = int(np.count_nonzero(differs & _middle(given.get(read, mine[read]), kind.quantizer)))
            row.add(value.size, int(differs.sum()), steps, first and said + first, lacks, ties)
        else:
            elements, differing, steps, first = compare_float(value, mine[t.graph])
            row.add(elements, differing, steps, first and said + first)


def _on_grid(value: np.ndarray, quantizer: Quantizer) -> np.ndarray:
    """Whether each real value stands for one of the grid's."""
    grid, q = quantizer.grid, np.asarray(value, np.float64) / quantizer.scale
    level = (q - grid.lo) / grid.step
    near = np.abs(level - np.rint(level)) <= OFF_GRID
    return near & (level > -0.5) & (level < grid.levels - 0.5)


def _middle(read: np.ndarray, quantizer: Quantizer) -> np.ndarray:
    """Where what is quantized lies in the middle between two levels, as far as float32 tells."""
    steps = np.asarray(read, np.float64) / quantizer.spacing
    return np.abs(steps - np.floor(steps) - 0.5) < TIE


def _compare_codes(value: np.ndarray, mine: np.ndarray, quantizer: Quantizer) -> tuple[np.ndarray, float, str, bool]:
    """(which differ, by how many levels at most, where the first one is, whether the executor has values that the grid
    lacks)."""
    unit = quantizer.scale * quantizer.grid.step
    apart = np.abs(np.asarray(value, np.float64) - mine) / unit
    off = ~_on_grid(value, quantizer)
    differs = off | ~(apart <= 0.5)
    if not differs.any():
        return differs, 0.0, "", False
    at = np.unravel_index((off if off.any() else differs).argmax(), value.shape)
    where = f"at ({', '.join(str(int(i)) for i in at)}): expected {value[at]:.9g}, got {mine[at]:.9g}"
    first = f"{where}, in steps of {unit:g}" + (", a value that its grid lacks" if off.any() else "")
    steps = np.where(off, apart, np.rint(apart))[differs].max()  # a float32 is no multiple of its grid's scale
    return differs, float(steps), first, bool(off.any())
