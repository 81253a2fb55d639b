"""Shared shifts (SWIS, Li et al., arXiv 2103.01308): int8 weights stored as few bits and the shifts that groups share.

A weight is sign · Σ_j m_j·2^(s_j) with m_j ∈ {0, 1}. The N shifts s_j ∈ 0..6 belong to a group of G weights that are
neighbours along the input channels; the mask m and the sign belong to the weight.

    SWIS      any N of the 7 positions          N + 1 + 3·N/G bits a weight
    SWIS-C    N consecutive positions           N + 1 + 3/G bits a weight

For each group every choice of positions is tried: each weight takes the nearest magnitude that the choice can say, and
the choice with the smallest Σe² + alpha·(Σe)² is kept (alpha > 0 also punishes an error of the group's sum, a bias).
That form of the paper's MSE++ is a reconstruction.

It is a storage format: kernels know planes. `decode` gives int8 values, whose grid is GRID; `to_group_planes` gives
the 2N planes of which each group's weights are sums.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations

import numpy as np

from mpcompile.ir.grid import Grid, twos_complement

MAGNITUDE_BITS = 7
GRID: Grid = twos_complement(8, narrow=True)
"""−127 .. 127: what decoded weights lie on."""


@dataclass(frozen=True, eq=False)
class SharedShifts:
    """Encoded weights of `shape` (input channels LAST), groups of G; the last group of a row may be cut short.

    sign bool [R, NG, G], mask uint8 [R, NG, G] (bit j belongs to shift j), shifts uint8 [R, NG, N] ascending, where
    R = the product of shape[:-1] and NG = ⌈shape[-1] / G⌉.
    """

    sign: np.ndarray
    mask: np.ndarray
    shifts: np.ndarray
    shape: tuple[int, ...]
    consecutive: bool

    @property
    def group(self) -> int:
        return self.mask.shape[-1]

    @property
    def count(self) -> int:
        """N, the shifts of a group."""
        return self.shifts.shape[-1]

    @property
    def bits_per_weight(self) -> float:
        """What a weight takes in a full group: mask, sign, and its part of the group's shifts (3 bits each)."""
        return self.count + 1 + (3 if self.consecutive else 3 * self.count) / self.group


def choices(count: int, consecutive: bool) -> list[tuple[int, ...]]:
    """Every set of `count` positions that a group may share."""
    if not 1 <= count <= MAGNITUDE_BITS:
        raise ValueError(f"a group shares 1 to {MAGNITUDE_BITS} shifts, not {count}")
    if consecutive:
        return [tuple(range(s, s + count)) for s in range(MAGNITUDE_BITS - count + 1)]
    return list(combinations(range(MAGNITUDE_BITS), count))


def encode(q: np.ndarray, count: int, group: int, *, consecutive: bool = False, alpha: float = 0.0) -> SharedShifts:
    """Weights int [..., C] in −127..127 to `count` shifts a group of `group`. Raises ValueError outside that range."""
    q = np.asarray(q, np.int64)
    GRID.level(q)
    groups = _grouped(q, group)
    magnitude = np.abs(groups)
    sets = choices(count, consecutive)
    cost = np.full((len(sets), *groups.shape[:2]), np.inf)
    masks = []
    for i, positions in enumerate(sets):
        mask_of, said = _nearest(positions)
        error = np.sign(groups) * said[magnitude] - groups
        cost[i] = (error**2).sum(-1) + alpha * error.sum(-1) ** 2
        masks.append(mask_of)
    best = cost.argmin(0)  # [R, NG]
    mask = np.array(masks, np.uint8)[best[..., None], magnitude]
    return SharedShifts(groups < 0, mask, np.array(sets, np.uint8)[best], q.shape, consecutive)


def decode(s: SharedShifts) -> np.ndarray:
    """The weights int64 [..., C], on GRID."""
    bits = (s.mask[..., None] >> np.arange(s.count)) & 1  # [R, NG, G, N]
    magnitude = (bits.astype(np.int64) << s.shifts[:, :, None, :]).sum(-1)
    return _ungrouped(np.where(s.sign, -magnitude, magnitude), s.shape)


def to_group_planes(s: SharedShifts) -> tuple[np.ndarray, np.ndarray]:
    """(planes uint8 [2N, ..., C], plane weights int64 [2N, ..., C]) with weight = Σ_i weights[i]·planes[i].

    N planes of the positive weights, then N of the negative ones; plane weights ±2^s are equal within a group.
    """
    bits = np.moveaxis((s.mask[..., None] >> np.arange(s.count)) & 1, -1, 0)  # [N, R, NG, G]
    both = np.concatenate([bits * ~s.sign, bits * s.sign])
    one = np.left_shift(np.int64(1), np.moveaxis(s.shifts, -1, 0).astype(np.int64))[..., None]
    weights = np.broadcast_to(np.concatenate([one, -one]), both.shape)
    return (
        np.stack([_ungrouped(b, s.shape) for b in both]).astype(np.uint8),
        np.stack([_ungrouped(w, s.shape) for w in weights]),
    )


def to_bytes(s: SharedShifts) -> bytes:
    """One bit stream: signs, masks (bit 0 of all first), then each group's shifts (SWIS-C: its first), 3 bits each."""
    shifts = s.shifts[..., :1] if s.consecutive else s.shifts
    parts = [s.sign.ravel(), _bits(s.mask, s.count), _bits(shifts, 3)]
    return np.packbits(np.concatenate([p.astype(np.uint8) for p in parts])).tobytes()


def from_bytes(
    data: bytes, shape: tuple[int, ...], count: int, group: int, *, consecutive: bool = False
) -> SharedShifts:
    """What `to_bytes` wrote. Raises ValueError where the length does not fit."""
    rows, groups = int(np.prod(shape[:-1])), -(-shape[-1] // group)
    weights, said = rows * groups * group, rows * groups * (1 if consecutive else count)
    total = weights * (1 + count) + 3 * said
    if len(data) != -(-total // 8):
        raise ValueError(f"{len(data)} bytes are no {count}-shift weights of {shape}, which take {-(-total // 8)}")
    bits = np.unpackbits(np.frombuffer(data, np.uint8), count=total)
    sign, mask, shifts = np.split(bits, [weights, weights * (1 + count)])
    shifts = _from_bits(shifts, 3).reshape(rows, groups, -1)
    if consecutive:
        shifts = shifts + np.arange(count, dtype=np.uint8)
    return SharedShifts(
        sign.astype(bool).reshape(rows, groups, group),
        _from_bits(mask, count).reshape(rows, groups, group),
        shifts,
        tuple(shape),
        consecutive,
    )


def _nearest(positions: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """For each magnitude 0..127: the mask over `positions` that comes nearest (of two, the smaller), and its value."""
    masks = np.arange(1 << len(positions))
    values = (((masks[:, None] >> np.arange(len(positions))) & 1) << np.array(positions)).sum(1)  # ascending
    best = np.abs(np.arange(1 << MAGNITUDE_BITS)[:, None] - values).argmin(1)
    return masks[best].astype(np.uint8), values[best]


def _grouped(q: np.ndarray, group: int) -> np.ndarray:
    """[..., C] to [R, NG, G], filled up with zeros."""
    rows = q.reshape(-1, q.shape[-1])
    return np.pad(rows, ((0, 0), (0, -q.shape[-1] % group))).reshape(len(rows), -1, group)


def _ungrouped(groups: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    return groups.reshape(len(groups), -1)[:, : shape[-1]].reshape(shape)


def _bits(x: np.ndarray, count: int) -> np.ndarray:
    """Numbers to their `count` low bits, bit 0 of all of them first."""
    return ((x.ravel()[None] >> np.arange(count, dtype=np.uint8)[:, None]) & 1).ravel()


def _from_bits(bits: np.ndarray, count: int) -> np.ndarray:
    return (bits.reshape(count, -1) << np.arange(count, dtype=np.uint8)[:, None]).sum(0).astype(np.uint8)
