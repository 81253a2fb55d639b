"""ConvTranspose of quantized weights, exactly, as a convolution and a rearrangement of its output.

Along one axis, with stride s, padding p in front and weights w of k taps, element Y of the result is

    y[Y] = Σ x[i]·w[t]  over all i, t with  i·s + t = Y + p

With Y + p = n·s + r, 0 ≤ r < s, only the taps t = r + s·m are in it: y = Σ_m x[n − m]·w[r + s·m]. So each phase r is a
convolution with ⌈k/s⌉ taps, some of which may be 0; all phases are one convolution with s times as many output channels,
and phase r of position n is element n·s + r, of which those from p on are kept.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from mpcompile.errors import ModelError
from mpcompile.frontend.blocks import regrouped
from mpcompile.frontend.contract import bias_of, no_weights
from mpcompile.frontend.grids import tightest
from mpcompile.frontend.importer import Fallback, Importer, Source, operator
from mpcompile.frontend.values import BLOCKED, Activation, QuantizedConstant
from mpcompile.ir.graph import Along, Conv, QuantizedWeight, View

MOST = 255
"""Between the least and the greatest weight of a grid of 8 bits."""


class Axis(NamedTuple):
    """One spatial axis. `size` of the input, `kernel` with its dilation, `before` of the padding that is cut off, `result`
    size of the output."""

    size: int
    kernel: int
    stride: int
    before: int
    result: int

    @property
    def taps(self) -> int:
        """Of each phase."""
        return -(-self.kernel // self.stride)

    @property
    def first(self) -> int:
        """The first position whose phases are needed."""
        return self.before // self.stride

    @property
    def positions(self) -> int:
        return (self.result - 1 + self.before) // self.stride - self.first + 1

    @property
    def pads(self) -> tuple[int, int]:
        """Of the convolution; negative where some of the input is in no element."""
        before = self.taps - 1 - self.first
        return before, self.positions - 1 + self.taps - self.size - before

    @property
    def start(self) -> int:
        """The first element that is kept of those positions'."""
        return self.before - self.first * self.stride


def axes_of(node: Source, spatial: list[int], kernel: tuple[int, ...]) -> list[Axis]:
    """Raises ModelError at attributes that do not fit."""
    n = len(kernel)
    strides, dilations = node.attribute("strides", [1] * n), node.attribute("dilations", [1] * n)
    flat, extra = node.attribute("pads", [0] * 2 * n), node.attribute("output_padding", [0] * n)
    wanted, auto = node.attribute("output_shape", [])[-n:], node.attribute("auto_pad", "NOTSET")
    given = ((spatial, n), (strides, n), (dilations, n), (flat, 2 * n), (extra, n), (wanted or spatial, n))
    if any(len(list(numbers)) != count for numbers, count in given):
        raise ModelError(
            f"{node}: strides, pads, dilations or an output shape that do not fit a kernel of {list(kernel)}"
        )
    if min(*kernel, *strides, *dilations) < 1 or min(*flat, *extra) < 0:
        raise ModelError(f"{node}: a kernel, stride or dilation below 1, or negative pads")
    found = []
    for i, (size, k, s, d) in enumerate(zip(spatial, kernel, strides, dilations)):
        reach, before, after = (k - 1) * d + 1, flat[i], flat[n + i]
        whole = (size - 1) * s + reach + extra[i]
        if wanted or auto in ("SAME_UPPER", "SAME_LOWER"):
            total = max(0, whole - (wanted[i] if wanted else size * s))
            before = total // 2 if auto == "SAME_UPPER" else total - total // 2
            after = total - before
        elif auto == "VALID":
            before = after = 0
        result = wanted[i] if wanted else whole - before - after
        if result < 1:
            raise ModelError(f"{node}: nothing is left of {size} elements between pads of {before} and {after}")
        found.append(Axis(size, reach, s, before, result))
    return found


@operator("ConvTranspose")
def conv_transpose(imp: Importer, node: Source):
    constant = imp.value(node, 1)
    if not isinstance(constant, QuantizedConstant):
        return no_weights(constant)
    if constant.u.ndim not in (3, 4):
        return Fallback(f"it is over {constant.u.ndim - 2} axes")
    source = imp.quantized(node, 0)
    if source is None:
        return imp.not_quantized(node, 0, "its input")
    groups, (inputs, each, *kernel) = node.attribute("group", 1), constant.u.shape
    channels, *spatial = imp.type(source.tensor).shape
    if channels != inputs or groups < 1 or inputs % groups or len(spatial) != len(kernel):
        raise ModelError(
            f"{node}: weights of shape {list(constant.u.shape)} in {groups} groups over {channels} channels do not fit"
        )

    def channels_first(a: np.ndarray) -> np.ndarray:
        """[C, M/groups, …] to [M, C/groups, …]."""
        apart = a.reshape(groups, inputs // groups, each, *kernel)
        return apart.swapaxes(1, 2).reshape(groups * each, inputs // groups, *kernel)

    constant = constant.rearranged(channels_first)
    if constant.is_blocked:
        return Fallback(BLOCKED)
    weight = constant.weight(str(node))
    axes = axes_of(node, spatial, tuple(kernel))
    if any(min(axis.pads) < 0 for axis in axes):
        return Fallback("it cuts off more than a kernel reaches")
    bias = bias_of(imp, node, 2, groups * each)
    made = phases(weight, groups, axes, node.attribute("dilations", [1] * len(kernel)))
    if made is None:
        return Fallback("its weights are on a grid without 0, and some of its taps are")
    made.scale = source.factor * made.scale
    count, positions = len(made.q), tuple(axis.positions for axis in axes)
    if bias is not None:
        bias = per_phase(bias, groups, count)
    n = len(axes)
    ones, pads = (1,) * n, tuple(axis.pads for axis in axes)
    columns = imp.unique(f"{node.outputs[0]}.phases")
    convolution = Conv(node.name, [source.tensor], [columns], made, bias, ones, pads, ones, groups)
    imp.emit(convolution, (count, *positions))
    x, whole = columns, (groups * each, *(axis.positions * axis.stride for axis in axes))
    kept = (groups * each, *(axis.result for axis in axes))
    if any(axis.stride > 1 for axis in axes):
        split = (groups, *(axis.stride for axis in axes), each, *positions)
        perm = (0, n + 1, *(at for i in range(n) for at in (n + 2 + i, 1 + i)))
        output = node.outputs[0] if whole == kept else imp.unique(f"{node.outputs[0]}.whole")
        x = regrouped(imp, imp.unique(f"{node.name}.interleaved"), x, output, split, perm, whole)
    if whole != kept:
        along = (Along(kept[0]), *(Along(axis.result, axis.start) for axis in axes))
        output = imp.unique(f"{node.outputs[0]}.kept")
        x = imp.emit(View(imp.unique(f"{node.name}.kept"), [x], [output], along), kept)
    imp.define(node, Activation(x))


def phases(weight: QuantizedWeight, groups: int, axes: list[Axis], dilations) -> QuantizedWeight | None:
    """[M, C/groups, k…] to [groups·phases·M/groups, C/groups, taps…], the taps in the order of a convolution; None where no
    grid of 8 bits holds them and the 0 of taps that a phase lacks."""
    q = weight.q
    for i, (axis, d) in enumerate(zip(axes, dilations), 2):
        spread = np.zeros((*q.shape[:i], axis.taps * axis.stride, *q.shape[i + 1 :]), np.int64)
        at = [slice(None)] * q.ndim
        at[i] = slice(0, axis.kernel, d)
        spread[tuple(at)] = q
        q = spread
    outputs, per_group = q.shape[:2]
    n = len(axes)
    sizes = [size for axis in axes for size in (axis.taps, axis.stride)]
    apart = q.reshape(groups, outputs // groups, per_group, *sizes)
    taps, strides = [3 + 2 * i for i in range(n)], [4 + 2 * i for i in range(n)]
    made = apart.transpose(0, *strides, 1, 2, *taps)
    made = np.flip(made, tuple(range(made.ndim - n, made.ndim)))
    count = outputs * math.prod(axis.stride for axis in axes)
    made = np.ascontiguousarray(made.reshape(count, per_group, *(axis.taps for axis in axes)))
    grid = weight.grid
    if not grid.has_zero and not made.all():
        low, high = min(grid.lo, 0), max(grid.hi, 0)
        if high - low > MOST:
            return None
        grid = tightest(low, high, 1, "taps")
    scale = weight.scale if weight.scale.size == 1 else per_phase(weight.scale, groups, count)
    return QuantizedWeight(made, grid, scale)


def per_phase(constant: np.ndarray, groups: int, count: int) -> np.ndarray:
    """float64 [M] to [groups·phases·M/groups]."""
    apart = constant.reshape(groups, 1, -1)
    return np.broadcast_to(apart, (groups, count // constant.size, apart.shape[-1])).reshape(-1).copy()
