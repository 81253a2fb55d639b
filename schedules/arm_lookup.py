"""NEON's tables of `lookup` (kernels/families/lookup.py); what looks up in them is a micro-kernel (arm_microkernels.py).

fill    table[2·16] u8 = Σ_4 a[2, 4] where bit      neighbours' sums; then for each table 2 TBL of 8 activations and
                                                    these, 0 where the index is past them; ADD
"""

from __future__ import annotations

from functools import cache

from mpcompile.kernels.families.lookup_form import Lookup, digit_bits
from mpcompile.kernels.tvm_names import TensorIntrin, llvm_intrin, tirx
from mpcompile.schedules.arm_intrinsics import BLOCK
from mpcompile.schedules.table_fill import fill


@cache
def lookup(level_bits: int, tables: int) -> Lookup:
    """The steps for levels of so many bits, in as few digits as there can be; `fill` is registered with TVM. A step
    takes a table or two."""
    TensorIntrin.register("mpcompile.aarch64.fill", *fill(_subset_sums), override=True)
    bits = digit_bits(level_bits, 1, 0)
    assert bits is not None, "one product always fits"
    return Lookup("", "", "mpcompile.aarch64.fill", -(-level_bits // bits), bits, BLOCK, f"tbl{tables}", tables)


def _subset_sums(a):
    """Of 8 bytes a: 2 · 16 bytes, entry e of group g the sum of those a[4g + j] whose bit j of e is set."""
    a = tirx.Shuffle([a, a + tirx.Shuffle([a], [n ^ 1 for n in range(8)])], list(range(16)))  # and neighbours' sums
    return tirx.Shuffle([_pair(a, 4 * g, 0) + _pair(a, 4 * g + 2, 2) for g in range(2)], list(range(32)))


def _pair(a, first: int, shift: int):
    """What a[first] and a[first + 1] add to each of the 16 entries, by bits `shift` and `shift` + 1 of its number."""
    chosen = [255, first, first + 1, 8 + first]
    index = _constant([chosen[e >> shift & 3] for e in range(16)])
    return llvm_intrin("uint8x16", "llvm.aarch64.neon.tbl1", 2, a, index)


def _constant(values: list[int]):
    """16 bytes as a vector."""
    words = [sum(v << 8 * b for b, v in enumerate(values[i : i + 8])) for i in (0, 8)]
    halves = [tirx.Broadcast(tirx.const(n, "uint64"), 2) for n in words]
    return tirx.reinterpret("uint8x16", tirx.Shuffle(halves, [0, 2]))
