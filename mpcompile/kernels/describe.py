"""Layer + buffers + families → `LayerSpec` and its constants, in the order of the kernel's arguments."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from mpcompile.errors import ModelError
from mpcompile.ir import layer as ir
from mpcompile.ir.formats import Buffer
from mpcompile.ir.graph import Listed, Picked
from mpcompile.kernels import families
from mpcompile.kernels.accumulators import check_int32
from mpcompile.kernels.architecture import Architecture
from mpcompile.kernels.families.family import Given
from mpcompile.kernels.spec import (
    IMAGE_CHANNELS,
    ChannelsLastSpec,
    ContractSpec,
    InterpolateSpec,
    LayerSpec,
    Op,
    OutputSpec,
    PartSpec,
    PoolSpec,
    RearrangeSpec,
    ViewSpec,
    block_channels,
)
from mpcompile.kernels.storage import anonymous
from mpcompile.reference.thresholds import thresholds

THRESHOLD_LEVELS = 4
"""Up to so many levels, comparing with integer thresholds is no dearer than fma, round and clamp."""

THRESHOLD_LEVELS_BY_CALLS = 16
"""The same where fma is a call of the C library."""


Forms = Mapping[str, Sequence[Buffer]]
Chosen = Mapping[tuple[int, int], str]


@dataclass(eq=False)
class Described:
    """inputs: the activation buffers, in argument order; constants follow; outputs last."""

    spec: LayerSpec
    inputs: list[Buffer]
    constants: list[np.ndarray]
    outputs: list[Buffer]


class _Describer:
    def __init__(self, layer: ir.Layer, inputs: Forms, outputs: Forms, chosen: Chosen, architecture: Architecture):
        self.layer, self.architecture = layer, architecture
        self.available, self.chosen = inputs, chosen
        self.channels = layer.shape[0]
        self.results = [(r, list(outputs[r.name])) for r in layer.results]
        self.padded = math.prod(block_channels(self.channels, [b for _, bs in self.results for b in bs]))
        for buffer in (b for _, bs in self.results for b in bs):
            if buffer.format == "planes" and self.channels <= IMAGE_CHANNELS:
                raise ModelError(
                    f"layer {layer.name}: {buffer.tensor} has {self.channels} channels, too few for planes"
                )
        self.arguments: list[tuple[Buffer, str]] = []
        self.constants: list[np.ndarray] = []
        self.floats: list[np.ndarray] = []
        self.ints: list[np.ndarray] = []
        self.lookups: list[np.ndarray] = []
        self.reach: list[int] = []  # of the contraction's parts: how far from 0 their sums may come

    # -- arguments and tables --------------------------------------------------------------------
    def stored(self, tensor: str, *formats: str, beside: str = "") -> Buffer:
        """The first of `formats` in which `tensor` is stored."""
        for f in formats:
            for b in self.available[tensor]:
                if b.format == f and b.beside == beside:
                    return b
        raise ModelError(f"layer {self.layer.name} reads {tensor} as {' or '.join(formats)}, and it is not stored so")

    def read(self, buffer: Buffer, word: str = "") -> Buffer:
        """The buffer, as an argument of the kernel; planes that are read as words are one of their own."""
        if (buffer, word) not in self.arguments:
            self.arguments.append((buffer, word))
        return buffer

    def row(self, table: list, values, dtype, fill) -> int:
        """Add a row of `padded` columns; an equal row is used again."""
        full = np.full(self.padded, fill, dtype)
        full[: self.channels] = np.broadcast_to(np.asarray(values), (self.channels,)).astype(dtype)
        for i, have in enumerate(table):
            if have.tobytes() == full.tobytes():
                return i
        table.append(full)
        return len(table) - 1

    def float_row(self, values, fill: float = 0.0) -> int:
        return self.row(self.floats, values, np.float32, fill)

    def int_row(self, values, fill: int = 0) -> int:
        return self.row(self.ints, values, np.int32, fill)

    def lookup(self, values: np.ndarray) -> int:
        """Number of the table; its size is a power of two, so that a mask keeps any index inside. An equal one is used
        again."""
        full = np.full(1 << (len(values) - 1).bit_length(), values[-1], np.float32)
        full[: len(values)] = values
        for i, have in enumerate(self.lookups):
            if have.tobytes() == full.tobytes():
                return i
        self.lookups.append(full)
        return len(self.lookups) - 1

    # -- terms -----------------------------------------------------------------------------------
    def term(self, index: int, term):
        if isinstance(term, ir.ViewTerm):
            self.list_picked(term.along or ())
            return ViewSpec(self.any_form(term.input), term.along)
        if isinstance(term, ir.RearrangeTerm):
            self.list_picked(term.along)
            return RearrangeSpec(self.any_form(term.input), term.order, term.whole, term.along)
        if isinstance(term, ir.InterpolateTerm):
            data = self.any_form(term.input)
            for a in (term.lines, term.columns):
                self.constants += [np.stack([a.first, a.second]).astype(np.int32)]
                self.constants += [np.stack([a.of_first, a.of_second]).astype(np.float32)]
            self.constants.append(np.array([term.scale, 0.0], np.float32))
            return InterpolateSpec(data)
        if isinstance(term, ir.PoolTerm):
            (kh, kw), (sy, sx), (top, left, bottom, right) = term.kernel, term.strides, term.pads
            return PoolSpec(self.any_form(term.input), term.kind, (kh, kw), (sy, sx), (top, left, bottom, right))
        self.reach = []
        parts = tuple(self.part(p, self.chosen[index, i]) for i, p in enumerate(term.parts))
        check_int32(self.layer.name, self.reach, sum(p.q[0].size for p in term.parts))
        return ContractSpec(parts)

    def list_picked(self, along: Sequence[Picked]) -> None:
        """Constants: the numbers of what is picked one by one."""
        self.constants += [a.indices().astype(np.int32) for a in along if isinstance(a, Listed)]

    def any_form(self, tensor: str) -> Buffer:
        return self.nameless(self.read(self.stored(tensor, "codes", "planes", "float", "plain")))

    def nameless(self, buffer: Buffer) -> Buffer:
        tensors = list(dict.fromkeys(b.tensor for b, _ in self.arguments))
        return anonymous(buffer, tensors.index(buffer.tensor))

    def part(self, part: ir.ContractPart, name: str) -> PartSpec:
        family = families.family(name)
        data = self.stored(part.input, family.reads)
        given = Given(part, data, self.channels, self.padded, self.layer.shape[1:], self.architecture)
        packed = family.describe(given)
        self.read(data, packed.spec.word)
        self.constants.append(packed.weight)
        if packed.table is not None:
            self.constants.append(packed.table)
        sums = None
        if packed.spec.offset:
            sums = self.read(self.stored(part.input, "sums", beside=data.format))
        constant, row = packed.base * part.q.sum((1, 2, 3)) + packed.constant, None
        if constant.any():
            row = self.int_row(constant)
            row = row if self.ints[row].any() else None
        bordered = any(part.pads) and not given.grid.has_zero
        furthest = int(np.abs(part.q).sum((1, 2, 3)).max())
        self.reach.append(packed.reach + abs(packed.base) * furthest * (2 if bordered else 1))
        return replace(
            packed.spec,
            data=self.nameless(data),
            sums=self.nameless(sums) if sums else None,
            constant=row,
            border=self.border(part, packed.base) if bordered else None,
        )

    def border(self, part: ir.ContractPart, halo_value: int) -> tuple[int, int]:
        """Constants of the exact border term: what the halo's value adds, taken off again.

        Pixels whose windows leave the map over the same taps share a class; int32 class of each row, of each column,
        and the term [classes y, classes x, padded].
        """
        _, h_out, w_out = self.layer.shape
        _, h, w = next(b for b in self.available[part.input] if b.format in ("planes", "codes")).shape
        outside_y = _outside(h_out, h, part.q.shape[2], part.strides[0], part.dilations[0], part.pads[0])
        outside_x = _outside(w_out, w, part.q.shape[3], part.strides[1], part.dilations[1], part.pads[1])
        classes_y, of_y = np.unique(outside_y, axis=0, return_inverse=True)
        classes_x, of_x = np.unique(outside_x, axis=0, return_inverse=True)
        per_tap = part.q.sum(1)  # [O, KH, KW]
        outside = classes_y[:, None, :, None] | classes_x[None, :, None, :]  # [CY, CX, KH, KW]
        term = np.zeros((len(classes_y), len(classes_x), self.padded), np.int32)
        term[..., : self.channels] = -halo_value * np.einsum("abhw,ohw->abo", outside.astype(np.int64), per_tap)
        self.constants += [of_y.reshape(-1).astype(np.int32), of_x.reshape(-1).astype(np.int32), term]
        return term.shape[:2]

    # -- epilogue --------------------------------------------------------------------------------
    def op(self, instr) -> Op:
        name = type(instr).__name__
        match instr:
            case ir.Load():
                return Op(name, (instr.term,))
            case ir.Fma():
                b = -1 - instr.b if isinstance(instr.b, (int, np.integer)) else self.float_row(instr.b)
                return Op(name, (instr.x, self.float_row(instr.a), int(b)))
            case ir.Plus():
                return Op(name, (instr.x, instr.y))
            case ir.Times() | ir.Largest() | ir.Smallest():
                return Op(name, (instr.x, instr.y))
            case ir.Apply():
                return Op(name, (instr.x, instr.function, *instr.parameters))
            case ir.LookUp():
                number = self.lookup(instr.values)
                return Op(name, (instr.level, number, len(self.lookups[number])))
            case ir.Divide():
                return Op(name, (instr.x, self.float_row(instr.s, 1.0)))
            case ir.Clamp():
                return Op(name, (instr.x, float(instr.lo), float(instr.hi)))
            case ir.Slope():
                return Op(name, (instr.x, self.float_row(instr.slope)))
            case ir.Round():
                return Op(name, (instr.x, instr.rounding, int(instr.lo), int(instr.hi)))
            case ir.Value():
                return Op(name, (instr.level, instr.grid.lo, instr.grid.step))
        raise ModelError(f"layer {self.layer.name}: {name} is no epilogue instruction")

    def thresholds(self, value: int) -> Op | None:
        """The Round at `value` as comparisons, where it is a monotone chain from one integer contraction."""
        epilogue = self.layer.epilogue
        rounded = epilogue[value]
        assert isinstance(rounded, ir.Round)
        load = _chain(epilogue, rounded)
        if load is None:
            return None
        contract = self.layer.terms[load.term]
        most = THRESHOLD_LEVELS if self.architecture.native_fma else THRESHOLD_LEVELS_BY_CALLS
        if not isinstance(contract, ir.ContractTerm) or rounded.hi - rounded.lo + 1 > most:
            return None
        low, high = self.bounds(contract)
        found = thresholds(epilogue, value, self.channels, low, high)
        if found is None:
            return None
        first = len(self.ints)
        # A grid of one level has none: one that nothing reaches, so that the layer still reads what it computes.
        rows = found.T if len(found.T) else np.full((1, self.channels), np.iinfo(np.int32).max, np.int32)
        for t in rows:  # consecutive rows: never merged with an equal one
            full = np.full(self.padded, np.iinfo(np.int32).max, np.int32)
            full[: self.channels] = t
            self.ints.append(full)
        flip = self.int_row(-found.flip.astype(np.int32)) if found.flip.any() else -1
        return Op("Thresholds", (load.term, first, len(rows), flip))

    def bounds(self, term: ir.ContractTerm) -> tuple[np.ndarray, np.ndarray]:
        """The least and greatest accumulator of each channel, over every input."""
        low = np.zeros(self.channels, np.int64)
        high = low.copy()
        for part in term.parts:
            grid = next(b.grid for b in self.available[part.input] if b.grid)
            lo, hi = (min(grid.lo, 0), max(grid.hi, 0)) if any(part.pads) else (grid.lo, grid.hi)
            low += np.minimum(part.q * lo, part.q * hi).sum((1, 2, 3))
            high += np.maximum(part.q * lo, part.q * hi).sum((1, 2, 3))
        return low, high

    def describe(self) -> Described:
        terms = tuple(self.term(i, t) for i, t in enumerate(self.layer.terms))
        single = len(self.results) == 1
        ops = []
        for i, instr in enumerate(self.layer.epilogue):
            compared = self.thresholds(i) if single and isinstance(instr, ir.Round) else None
            ops.append(compared or self.op(instr))
        outputs = tuple(
            (ChannelsLastSpec if r.channels_last else OutputSpec)(r.value, tuple(anonymous(b, i) for b in bs))
            for i, (r, bs) in enumerate(self.results)
        )
        spec = LayerSpec(
            (self.channels, *self.layer.shape[1:]), terms, tuple(ops), outputs, len(self.floats), len(self.ints)
        )
        tables = [np.stack(t) for t in (self.floats, self.ints) if t] + self.lookups
        return Described(
            spec, [b for b, _ in self.arguments], self.constants + tables, [b for _, bs in self.results for b in bs]
        )


CHAINLESS = (ir.Apply, ir.Largest, ir.LookUp, ir.Plus, ir.Round, ir.Smallest, ir.Times, ir.Value)
"""Instructions that read two values, or need not be monotone."""


def _chain(epilogue: Sequence[ir.Instr], rounded: ir.Round) -> ir.Load | None:
    """The Load from which `rounded` is computed through one-input instructions alone."""
    instr = epilogue[rounded.x]
    while not isinstance(instr, ir.Load):
        if isinstance(instr, CHAINLESS):
            return None
        if isinstance(instr, ir.Fma) and isinstance(instr.b, (int, np.integer)):
            return None
        instr = epilogue[instr.x]
    return instr


def _outside(outputs: int, size: int, kernel: int, stride: int, dilation: int, before: int) -> np.ndarray:
    """bool [outputs, kernel]: whether the tap falls into the padding."""
    at = np.arange(outputs)[:, None] * stride + np.arange(kernel) * dilation - before
    return (at < 0) | (at >= size)


def describe(layer: ir.Layer, inputs: Forms, outputs: Forms, chosen: Chosen, architecture: Architecture) -> Described:
    """inputs, outputs: the stored forms of each tensor. `chosen[term, part]` names the family of each part.

    Raises ModelError where a tensor is not stored in the form that a family reads.
    """
    return _Describer(layer, inputs, outputs, chosen, architecture).describe()
