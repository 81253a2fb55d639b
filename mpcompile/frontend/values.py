"""What an ONNX tensor name stands for while a model is read: a constant, a quantized constant, integer codes, or an
activation."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mpcompile.errors import ModelError
from mpcompile.frontend import grids
from mpcompile.ir.graph import QuantizedWeight, Quantizer

BLOCKED = "its weights have several scales within one output channel (blocked quantization)"


@dataclass(eq=False)
class Constant:
    """An initializer or a folded subgraph, any dtype."""

    array: np.ndarray


@dataclass(eq=False)
class QuantizedConstant:
    """Codes u (int64) of a constant; real value = scale·(u − zero). `scale` and `zero` are float64, broadcast to u's
    shape.

    `limits` are the least and greatest u that the file allows, where it says so; `step` 2 means u is −1 or +1.
    """

    u: np.ndarray
    scale: np.ndarray
    zero: np.ndarray
    limits: tuple[int, int] | None = None
    step: int = 1

    def __post_init__(self):
        self.scale = np.broadcast_to(np.asarray(self.scale, np.float64), self.u.shape)
        self.zero = np.broadcast_to(np.asarray(self.zero, np.float64), self.u.shape)

    def real(self) -> np.ndarray:
        """float64 values."""
        return (self.u - self.zero) * self.scale

    def rearranged(self, change) -> QuantizedConstant:
        """The same after `change` (a transpose or reshape of arrays)."""
        return QuantizedConstant(change(self.u), change(self.scale), change(self.zero), self.limits, self.step)

    @property
    def is_blocked(self) -> bool:
        """Whether an output channel, along axis 0, has several scales."""
        rows = self.scale.reshape(len(self.scale), -1)
        return bool((rows != rows[:, :1]).any())

    def weight(self, where: str) -> QuantizedWeight:
        """As weights whose output channel is axis 0, with one scale each. Raises ModelError, beginning with `where`, at
        what no grid holds."""
        if self.is_blocked:
            raise ModelError(f"{where}: {BLOCKED}; one scale per tensor or per output channel would be accepted")
        scale = self.scale.reshape(len(self.scale), -1)[:, 0].copy()
        doubled = 2 * self.zero
        odd = ~(np.isfinite(doubled) & (doubled == np.rint(doubled)))
        if odd.any():
            raise ModelError(
                f"{where}: a weight zero point of {self.zero[odd].flat[0]:g}; whole and half numbers would be accepted"
            )
        factor = 2 if (doubled % 2 != 0).any() else 1
        zero = np.rint(factor * self.zero).astype(np.int64)
        q = factor * self.u - zero
        step = max(self.step, factor)
        if self.limits and (zero == zero.flat[0]).all():
            low, high = (factor * u - int(zero.flat[0]) for u in self.limits)
        else:
            low, high, step = grids.span(q)
        scale = scale / factor
        scale = scale[:1] if (scale == scale[0]).all() else scale
        return QuantizedWeight(q, grids.tightest(low, high, step, where), scale)


@dataclass(frozen=True, eq=False)
class Codes:
    """The integers that QuantizeLinear wrote, before DequantizeLinear. `tensor` is the real graph tensor it read.
    `spacing`: float64 [C], one for each channel, or [1]. `zero_first`: see ir.graph.Quantizer."""

    tensor: str
    node: str
    spacing: np.ndarray
    zero: int
    low: int
    high: int
    zero_first: bool = False


@dataclass(frozen=True)
class IntegerInput:
    """Integers or truth values: a model input, as its caller gives it, or what an operator made. `tensor` holds them in
    float32, exactly up to 2^24. They become real values by a DequantizeLinear or a Cast."""

    tensor: str


@dataclass(frozen=True)
class DynamicCodes(IntegerInput):
    """The codes that a DynamicQuantizeLinear wrote: `tensor` holds them, 0 to 255, in float32; `source` is the real tensor
    that it read, `scale` and `zero` hold its scale and zero point, a value of each, all axes kept."""

    source: str
    scale: str
    zero: str


@dataclass(frozen=True, eq=False)
class Activation:
    """A graph tensor, and what is known of it where it is float and still stands for codes:

    `on_grid`: its values lie on this quantizer's grid (a clipped, sliced or upsampled quantized tensor);
    `scaled`: it is (quantized tensor, factor), which a contraction takes into its weights' scale. A factor is float64 [1],
    or [C], one for each channel, which only a depthwise convolution can take in.
    """

    tensor: str
    on_grid: Quantizer | None = None
    scaled: tuple[str, np.ndarray] | None = None


Value = Constant | QuantizedConstant | Codes | IntegerInput | Activation
