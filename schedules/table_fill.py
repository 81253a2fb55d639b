"""The filling of two neighbouring tables of `lookup` (kernels/families/lookup.py) as a tensor intrinsic.

table[2·16] u8 = Σ_4 a[2, 4] where the entry's bit is set
"""

from __future__ import annotations

from mpcompile.kernels.tvm_names import T

FILLED = 32
"""Entries."""


def fill(subset_sums):
    """(description, implementation). `subset_sums`: of a vector of 8 bytes, 2 · 16 bytes: entry e of group g is the sum
    of those a[4g + j] whose bit j of e is set."""

    @T.prim_func(s_tir=True)
    def description(a: T.handle, t: T.handle) -> None:
        A = T.match_buffer(a, (8,), "uint8", offset_factor=8)
        C = T.match_buffer(t, (32,), "uint8", offset_factor=32)
        with T.sblock("root"):
            T.reads(A[0:8])
            T.writes(C[0:32])
            for n in range(32):
                with T.sblock("update"):
                    v = T.axis.remap("S", [n])
                    C[v] = (
                        T.Select(v % 2 == 1, A[v // 16 * 4], T.uint8(0))
                        + T.Select(v // 2 % 2 == 1, A[v // 16 * 4 + 1], T.uint8(0))
                    ) + (
                        T.Select(v // 4 % 2 == 1, A[v // 16 * 4 + 2], T.uint8(0))
                        + T.Select(v // 8 % 2 == 1, A[v // 16 * 4 + 3], T.uint8(0))
                    )

    @T.prim_func(s_tir=True)
    def implementation(a: T.handle, t: T.handle) -> None:
        A = T.match_buffer(a, (8,), "uint8", offset_factor=8)
        C = T.match_buffer(t, (32,), "uint8", offset_factor=32)
        with T.sblock("root"):
            T.reads(A[0:8])
            T.writes(C[0:32])
            C.vstore([0], subset_sums(A.vload([0], dtype="uint8x8")))

    return description, implementation
