"""How many output lines share the tables of `lookup`."""

from __future__ import annotations

from mpcompile.kernels.families.lookup import LookupSpec
from mpcompile.kernels.spec import LayerSpec
from mpcompile.schedules.tile import divisors

TABLE_LINES = 7
"""Output lines that share look-up tables, at most. Made for each line anew, tables took a third of a layer of 64
channels on AVX2."""


def table_lines(spec: LayerSpec, parts: list[LookupSpec], most: int) -> int | None:
    """As many, up to TABLE_LINES, as need no more than `most` bytes of tables of each of the layer's `parts`. None where
    no line reads another's."""
    if not any(p.kernel[0] > 1 for p in parts):
        return None
    return max(
        n for n in divisors(spec.shape[1], TABLE_LINES) if n == 1 or max(_table_bytes(p, n) for p in parts) <= most
    )


def _table_bytes(part: LookupSpec, lines: int) -> int:
    """Of the tables that so many output lines read: 16 for 4 channels, of each digit."""
    _, width, channels = part.data.buffer_shape
    rows = (lines - 1) * part.strides[0] + (part.kernel[0] - 1) * part.dilations[0] + 1
    return rows * width * channels * 4 * part.lookup.digits
