"""Grids: the integers that a quantized tensor may hold, and how they are sums of binary planes.

    q = Σ_i c_i·B_i + o        B_i ∈ {0,1} planes, c_i plane weights, o offset; the real value is scale·q

| grid                      | planes | c_i                        | o          | values q                       |
|---------------------------|--------|----------------------------|------------|--------------------------------|
| unsigned(b, zero=z)       | b      | 2^i                        | −z         | −z .. 2^b−1−z, step 1          |
| twos_complement(b)        | b      | 2^i, the last −2^(b−1)     | 0 (−z)     | −2^(b−1) .. 2^(b−1)−1, step 1  |
| odd(b)                    | b      | 2·2^i                      | −(2^b−1)   | −(2^b−1) .. 2^b−1, step 2      |
| bipolar() = odd(1)        | 1      | 2                          | −1         | −1, +1                         |
| sign_magnitude(n)         | 2n     | 2^i and −2^i               | 0          | −(2^n−1) .. 2^n−1, step 1      |
| half_integer(b, z)        | b      | 2·2^i                      | −2z        | −2z .. , step 2, scale halved  |

Three numbers name the same element of a grid, and the code keeps them apart:

* the value q, what is multiplied;
* the level k = (q − lo)/step, 0 for the smallest value: what a quantizer counts and what `dot` stores as u8;
* the pattern, whose bit i is B_i: what bit planes store.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

MAX_BITS = 8


@dataclass(frozen=True)
class Grid:
    """Integers lo, lo+step, …, hi, each a sum of planes. Frozen, hashable; compare with ==.

    `plane_weights` are the c_i (c_0 first), `offset` is o. Raises ValueError where some value of lo..hi
    is not a sum of planes.
    """

    plane_weights: tuple[int, ...]
    offset: int
    lo: int
    hi: int
    step: int = 1

    def __post_init__(self):
        if self.step < 1 or self.hi < self.lo or (self.hi - self.lo) % self.step:
            raise ValueError(f"no grid runs from {self.lo} to {self.hi} in steps of {self.step}")
        if not 1 <= self.planes <= 2 * MAX_BITS:
            raise ValueError(f"a grid has 1 to {2 * MAX_BITS} planes, not {self.planes}")
        missing = [q for q in (self.lo, self.hi) if q not in self._pattern_of]
        missing += [q for q in range(self.lo, self.hi + 1, self.step) if q not in self._pattern_of][:1]
        if missing:
            raise ValueError(f"{missing[0]} is no sum of the planes {self.plane_weights} and {self.offset}")

    # -- sizes -----------------------------------------------------------------------------------
    @property
    def planes(self) -> int:
        """How many binary planes it takes."""
        return len(self.plane_weights)

    @property
    def levels(self) -> int:
        """How many values the grid has."""
        return (self.hi - self.lo) // self.step + 1

    @property
    def bits(self) -> int:
        """Bits that tell its levels apart: ⌈log2(levels)⌉, at least 1."""
        return max(1, (self.levels - 1).bit_length())

    @property
    def max_abs(self) -> int:
        return max(abs(self.lo), abs(self.hi))

    @property
    def has_zero(self) -> bool:
        """Whether real 0 has a code: where not, padding needs an exact border term."""
        return self.lo <= 0 <= self.hi and -self.lo % self.step == 0

    @property
    def zero_level(self) -> int:
        """The level of q = 0. Raises ValueError where the grid has none."""
        if not self.has_zero:
            raise ValueError(f"{self} has no code for 0")
        return -self.lo // self.step

    # -- values, levels, patterns ----------------------------------------------------------------
    @cached_property
    def _pattern_of(self) -> dict[int, int]:
        """value → pattern; where several patterns give a value (sign-magnitude), the one with fewest ones."""
        bits = (np.arange(1 << self.planes)[:, None] >> np.arange(self.planes)) & 1
        values = bits @ np.array(self.plane_weights, np.int64) + self.offset
        table: dict[int, int] = {}
        for pattern in np.argsort(bits.sum(1), kind="stable"):
            table.setdefault(int(values[pattern]), int(pattern))
        return table

    @cached_property
    def values(self) -> np.ndarray:
        """int64 [levels]: every value, ascending."""
        return np.arange(self.lo, self.hi + 1, self.step, dtype=np.int64)

    @cached_property
    def patterns(self) -> np.ndarray:
        """int64 [levels]: the pattern of each level."""
        return np.array([self._pattern_of[int(q)] for q in self.values], np.int64)

    def level(self, q: np.ndarray) -> np.ndarray:
        """Values to levels, same shape, int64. Raises ValueError at a value that is not on the grid."""
        q = np.asarray(q, np.int64)
        k, rest = np.divmod(q - self.lo, self.step)
        if q.size and (rest.any() or k.min() < 0 or k.max() >= self.levels):
            bad = q[(rest != 0) | (k < 0) | (k >= self.levels)].flat[0]
            raise ValueError(f"{bad} is not on {self}")
        return k

    def value(self, k: np.ndarray) -> np.ndarray:
        """Levels to values, same shape, int64."""
        return self.lo + self.step * np.asarray(k, np.int64)

    def __str__(self) -> str:
        step = "" if self.step == 1 else f" step {self.step}"
        return f"{self.planes}-plane grid {self.lo}..{self.hi}{step}"

    # -- JSON ------------------------------------------------------------------------------------
    def to_json(self) -> dict:
        return {
            "plane_weights": list(self.plane_weights),
            "offset": self.offset,
            "lo": self.lo,
            "hi": self.hi,
            "step": self.step,
        }


def _check_bits(bits: int) -> None:
    if not isinstance(bits, (int, np.integer)) or not 1 <= bits <= MAX_BITS:
        raise ValueError(f"bitwidth must be 1 to {MAX_BITS}, not {bits}")


def unsigned(bits: int, zero: int = 0, *, narrow: bool = False) -> Grid:
    """PACT, HWGQ, DoReFa, LSQ activations, ONNX and QONNX unsigned. `narrow` leaves out the topmost code."""
    _check_bits(bits)
    return Grid(tuple(1 << i for i in range(bits)), -zero, -zero, (1 << bits) - 1 - narrow - zero)


def twos_complement(bits: int, zero: int = 0, *, narrow: bool = False) -> Grid:
    """LSQ, HAWQ, ONNX and QONNX signed. `narrow` leaves out the lowest code, −2^(b−1)."""
    _check_bits(bits)
    weights = tuple(1 << i for i in range(bits - 1)) + (-(1 << (bits - 1)),)
    half = 1 << (bits - 1)
    return Grid(weights, -zero, -half + narrow - zero, half - 1 - zero)


def odd(bits: int) -> Grid:
    """Mid-rise: 2u − (2^b − 1), without a zero. DoReFa and EdMIPS weights; odd(1) is bipolar."""
    _check_bits(bits)
    top = (1 << bits) - 1
    return Grid(tuple(2 << i for i in range(bits)), -top, -top, top, 2)


def bipolar() -> Grid:
    """−1 and +1: XNOR-Net, QONNX BipolarQuant, and QONNX's signed IntQuant at one bit."""
    return odd(1)


def sign_magnitude(bits: int) -> Grid:
    """p − n with p, n of `bits` magnitude bits each: BSQ, and ternary at one bit. 2·bits planes."""
    _check_bits(bits)
    top = (1 << bits) - 1
    return Grid(tuple(1 << i for i in range(bits)) + tuple(-(1 << i) for i in range(bits)), 0, -top, top)


def half_integer(bits: int, twice_zero: int, *, signed: bool = False, narrow: bool = False) -> Grid:
    """A zero point of twice_zero/2 (odd): real = s·(u − z) = (s/2)·(2u − 2z). The scale that goes with it is s/2.

    How QONNX carries the odd grid: 2 bits, unsigned, z = 1.5 gives odd(2).
    """
    _check_bits(bits)
    if twice_zero % 2 == 0:
        raise ValueError(f"{twice_zero}/2 is a whole zero point: use unsigned or twos_complement")
    whole = (twos_complement if signed else unsigned)(bits, narrow=narrow)
    return Grid(
        tuple(2 * c for c in whole.plane_weights), -twice_zero, 2 * whole.lo - twice_zero, 2 * whole.hi - twice_zero, 2
    )
