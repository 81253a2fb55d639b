"""The fused layer: integer terms → float32 epilogue → outputs. One definition for reference and kernels. numpy only.

    terms      each gives one number per (c, y, x) of the layer's output:
               ContractTerm  Σ w·a, exact in int32
               PoolTerm      max or sum over windows
               ViewTerm      the tensor itself, or elements of it
               RearrangeTerm its elements in another order
               InterpolateTerm pixels between its pixels
    epilogue   a list of float32 instructions in SSA form, each ONE correctly rounded IEEE operation, so that every
               target gives the same bits; nothing is left for a compiler to contract
    outputs    each a value of the epilogue: float32, or a level of a grid

A convolution with its BatchNorm, activation, residual add and next quantizers is one layer; a downsample convolution
is a second ContractTerm of the layer whose add it feeds; an input quantizer is a layer with a ViewTerm.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from mpcompile.ir.graph import Between, Node, Picked, Quantizer
from mpcompile.ir.grid import Grid
from mpcompile.ir.order import Order


# -- terms: (C, H, W) in, (O, HO, WO) out; a sequence (C, L) is (C, 1, L), a vector (C,) is (C, 1, 1) -----------------
@dataclass(eq=False)
class ContractPart:
    """One convolution over one quantized tensor. q int64 [O, C/groups, KH, KW], values on `grid`.

    pads = (top, left, bottom, right), of real zeros, exactly, also where the input's grid has no code for 0.
    A dense layer over a flattened (C, H, W) is a kernel of H×W.
    """

    input: str
    q: np.ndarray
    grid: Grid
    strides: tuple[int, int] = (1, 1)
    pads: tuple[int, int, int, int] = (0, 0, 0, 0)
    dilations: tuple[int, int] = (1, 1)
    groups: int = 1


@dataclass(eq=False)
class ContractTerm:
    """int32: the sum of its parts' Σ w_q·a_q. Several parts: a concat whose slices share one real scale."""

    parts: list[ContractPart]


@dataclass(eq=False)
class PoolTerm:
    """kind "max" or "sum" of q (quantized input: int32) or of float32 (added in order of kh, then kw, from 0.0).

    Padding is left out of a max and adds 0 to a sum. pads = (top, left, bottom, right).
    """

    input: str
    kind: str
    kernel: tuple[int, int]
    strides: tuple[int, int]
    pads: tuple[int, int, int, int] = (0, 0, 0, 0)


@dataclass(eq=False)
class ViewTerm:
    """The input itself, or what `along` picks of its channels, lines and columns: q as int32 for a quantized tensor, else
    float32."""

    input: str
    along: tuple[Picked, Picked, Picked] | None = None


@dataclass(eq=False)
class RearrangeTerm:
    """The input's elements in another order, as a map of the shape `whole`, and of that what `along` picks: q as int32 for
    a quantized tensor, else float32."""

    input: str
    order: Order
    whole: tuple[int, int, int]
    along: tuple[Picked, Picked, Picked]


@dataclass(eq=False)
class InterpolateTerm:
    """float32, of a quantized tensor whose real values are q·`scale`, rounded to float32: each pixel is made of four. Every
    product and sum is one correctly rounded operation: wij = line i's weight · column j's, then

        w11·x11 + w12·x12 + w21·x21 + w22·x22        from left to right
    """

    input: str
    scale: float
    lines: Between
    columns: Between


Term = ContractTerm | PoolTerm | ViewTerm | RearrangeTerm | InterpolateTerm


# -- epilogue: value ids are indices into Layer.epilogue; constants are float32 [O] or [1] ---
@dataclass(eq=False)
class Load:
    """Term number `term` as float32; an int32 is converted, round to nearest even."""

    term: int


@dataclass(eq=False)
class Fma:
    """fma(x, a, b), rounded once. b is a constant, or the id (int) of another value."""

    x: int
    a: np.ndarray
    b: np.ndarray | int


@dataclass(eq=False)
class Plus:
    """x + y, rounded once. Neither may be a bare product: a Times, or an Fma with a constant-zero b (write Fma(x, a, y)
    instead)."""

    x: int
    y: int


@dataclass(eq=False)
class Times:
    """x · y, rounded once."""

    x: int
    y: int


@dataclass(eq=False)
class Largest:
    """max(x, y)."""

    x: int
    y: int


@dataclass(eq=False)
class Smallest:
    """min(x, y)."""

    x: int
    y: int


@dataclass(eq=False)
class Apply:
    """A smooth function of x: the sequence of operations that ir/smooth.py defines by that name. It counts as a product: no
    Plus may read it."""

    x: int
    function: str
    parameters: tuple[float, ...] = ()


@dataclass(eq=False)
class LookUp:
    """values[level], float32: `level` is the id of a Round with as many levels."""

    level: int
    values: np.ndarray


@dataclass(eq=False)
class Divide:
    """x / s, rounded once: only where ties matter (requantizing what is already on a grid)."""

    x: int
    s: np.ndarray


@dataclass(eq=False)
class Clamp:
    """min(max(x, lo), hi), float32 scalars."""

    x: int
    lo: float
    hi: float


@dataclass(eq=False)
class Slope:
    """PRelu as fma(min(x, 0), slope, max(x, 0)), rounded once."""

    x: int
    slope: np.ndarray


@dataclass(eq=False)
class Round:
    """A level: clamp(round(x), lo, hi) − lo, as int32; x is in units of the quantizer's spacing, zero point added.

    "sign": 1 where x ≥ 0, else 0 (lo = 0, hi = 1). half_up rounds halves away from 0, half_down to 0, up away from
    0, down to 0.
    """

    x: int
    rounding: str
    lo: int
    hi: int


@dataclass(eq=False)
class Value:
    """float32 of q = grid.lo + grid.step·level for the Round `level`: a quantized value used further on."""

    level: int
    grid: Grid


Instr = Load | Fma | Plus | Times | Largest | Smallest | Apply | LookUp | Divide | Clamp | Slope | Round | Value


@dataclass(eq=False)
class Output:
    """Tensor `name` is value `value`: of a Round (then `quantizer` names grid and scale), else float32. `channels_last`:
    the tensor has the channels behind the other axes, (HO, WO, O); float32, for what is no layer."""

    name: str
    value: int
    quantizer: Quantizer | None = None
    channels_last: bool = False


@dataclass(eq=False)
class Layer(Node):
    """inputs = the terms' input tensors in order (once each), outputs = the Outputs' names. shape = (O, HO, WO)."""

    shape: tuple[int, int, int] = (0, 0, 0)
    terms: list[Term] = field(default_factory=list)
    epilogue: list[Instr] = field(default_factory=list)
    results: list[Output] = field(default_factory=list)
    source: list[str] = field(default_factory=list)
    """Names of the source nodes that were fused, for messages and reports."""

    def part(self, term: int, part: int) -> ContractPart:
        """A contraction of the layer, by the number of its term and its own in that."""
        found = self.terms[term]
        assert isinstance(found, ContractTerm)
        return found.parts[part]
