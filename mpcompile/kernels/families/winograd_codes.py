"""Weights of family `winograd` that a kernel transforms, as it reads them: codes of few bits, several taps a byte. numpy
only.

    w8 = step·code + least                  code 0..2^bits − 1 in `bits` bits, bits 1, 2, 4

    byte i:  | tap i + (8/bits − 1)·n | … | tap i + n | tap i |       n bytes for each input channel of an output channel

A network's weights come from the third cache, or from memory: what a layer of 512 channels reads there decides its speed.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mpcompile.ir.grid import Grid
from mpcompile.kernels.weights import dot_form

WIDTHS = 1, 2, 4


@dataclass(frozen=True)
class Codes:
    """bits: of a code, one of WIDTHS."""

    bits: int
    step: int
    least: int

    @staticmethod
    def of(grid: Grid, padding: bool) -> Codes | None:
        """Of weights on a grid that has a `dot_form`; None where they need more than four bits, or where input channels
        are padded by a 0 that it has not."""
        form = dot_form(grid)
        assert form is not None, f"{grid} has no int8 form"
        m, o = form
        bits = next((b for b in WIDTHS if grid.bits <= b), None)
        step, least = grid.step // m, (grid.lo - o) // m
        if bits is None or (padding and (-least % step or not 0 <= -least // step < 1 << bits)):
            return None
        return Codes(bits, step, least)

    @property
    def taps(self) -> int:
        """Of a byte."""
        return 8 // self.bits

    def bytes(self, taps: int) -> int:
        """That hold so many taps."""
        return -(-taps // self.taps)

    def place(self, tap, taps: int) -> tuple:
        """(byte, shift) of a tap, of so many."""
        held = self.bytes(taps)
        return tap % held, tap // held * self.bits

    def pack(self, w8: np.ndarray) -> np.ndarray:
        """int8 [blocks, steps, taps, lanes, group] to uint8 [blocks, steps, bytes, lanes, group]; zeros that the grid has
        not, which stand for output channels that nobody reads, to any code."""
        count = w8.shape[2]
        codes = (w8.astype(np.int64) - self.least) // self.step & (1 << self.bits) - 1
        packed = np.zeros((*w8.shape[:2], self.bytes(count), *w8.shape[3:]), np.uint8)
        for tap in range(count):
            at, shift = self.place(tap, count)
            packed[:, :, at] |= (codes[:, :, tap] << shift).astype(np.uint8)
        return packed
