"""AVX2's steps of `lookup` (kernels/families/lookup.py) as tensor intrinsics.

look    acc[16, 2] u8 += table[index[16, 2]]          PSHUFB, PADDB
widen   acc[2, 16] u16 += u8[16, 2]                   even bytes: AND, PADDW; odd bytes: PSRLW, PADDW
fill    table[2·16] u8 = Σ_4 a[2, 4] where bit        4 PSHUFB of 8 activations, 0 where the entry's bit is; PADDB
"""

from __future__ import annotations

from functools import cache

from mpcompile.kernels.families.lookup_form import Lookup
from mpcompile.kernels.tvm_names import T, TensorIntrin, llvm_intrin, tirx
from mpcompile.schedules.table_fill import fill
from mpcompile.schedules.x86_narrow import PSHUFB


@cache
def lookup(digits: int, bits: int) -> Lookup:
    """The steps for digits of so many bits, registered with TVM."""
    TensorIntrin.register("mpcompile.look_256", *_look(), override=True)
    TensorIntrin.register("mpcompile.widen_look_256", *_widen(), override=True)
    TensorIntrin.register("mpcompile.fill_256", *fill(_subset_sums), override=True)
    return Lookup("mpcompile.look_256", "mpcompile.widen_look_256", "mpcompile.fill_256", digits, bits)


def _look():
    @T.prim_func(s_tir=True)
    def description(t: T.handle, w: T.handle, c: T.handle) -> None:
        A = T.match_buffer(t, (16,), "uint8", offset_factor=16)
        W = T.match_buffer(w, (16, 2), "uint8", offset_factor=32)
        C = T.match_buffer(c, (16, 2), "uint8", offset_factor=1, scope="local")
        with T.sblock("root"):
            T.reads(C[0:16, 0:2], W[0:16, 0:2], A[0:16])
            T.writes(C[0:16, 0:2])
            for i in range(16):
                for k in range(2):
                    for e in range(16):
                        with T.sblock("update"):
                            vi, vk, ve = T.axis.remap("SSR", [i, k, e])
                            C[vi, vk] = C[vi, vk] + T.Select(W[vi, vk] == T.cast(ve, "uint8"), A[ve], T.uint8(0))

    @T.prim_func(s_tir=True)
    def implementation(t: T.handle, w: T.handle, c: T.handle) -> None:
        A = T.match_buffer(t, (16,), "uint8", offset_factor=16)
        W = T.match_buffer(w, (16, 2), "uint8", offset_factor=32)
        C = T.match_buffer(c, (16, 2), "uint8", offset_factor=1, scope="local")
        with T.sblock("root"):
            T.reads(C[0:16, 0:2], W[0:16, 0:2], A[0:16])
            T.writes(C[0:16, 0:2])
            C.vstore(
                [0, 0],
                C.vload([0, 0], dtype="uint8x32")
                + llvm_intrin(
                    "uint8x32",
                    PSHUFB[256],
                    2,
                    _twice(A.vload([0], dtype="uint8x16")),
                    W.vload([0, 0], dtype="uint8x32"),
                ),
            )

    return description, implementation


def _twice(table):
    """16 bytes in both halves of a vector."""
    return tirx.Shuffle([table, table], list(range(32)))


def _widen():
    @T.prim_func(s_tir=True)
    def description(b: T.handle, c: T.handle) -> None:
        B = T.match_buffer(b, (16, 2), "uint8", offset_factor=1, scope="local")
        C = T.match_buffer(c, (2, 16), "uint16", offset_factor=1, scope="local")
        with T.sblock("root"):
            T.reads(C[0:2, 0:16], B[0:16, 0:2])
            T.writes(C[0:2, 0:16])
            for k in range(2):
                for i in range(16):
                    with T.sblock("update"):
                        vk, vi = T.axis.remap("SS", [k, i])
                        C[vk, vi] = C[vk, vi] + T.cast(B[vi, vk], "uint16")

    @T.prim_func(s_tir=True)
    def implementation(b: T.handle, c: T.handle) -> None:
        B = T.match_buffer(b, (16, 2), "uint8", offset_factor=1, scope="local")
        C = T.match_buffer(c, (2, 16), "uint16", offset_factor=1, scope="local")
        with T.sblock("root"):
            T.reads(C[0:2, 0:16], B[0:16, 0:2])
            T.writes(C[0:2, 0:16])
            C.vstore(
                [0, 0],
                C.vload([0, 0], dtype="uint16x16")
                + (_pairs(B.vload([0, 0], dtype="uint8x32")) & tirx.Broadcast(tirx.const(255, "uint16"), 16)),
            )
            C.vstore(
                [1, 0],
                C.vload([1, 0], dtype="uint16x16")
                + (_pairs(B.vload([0, 0], dtype="uint8x32")) >> tirx.Broadcast(tirx.const(8, "uint16"), 16)),
            )

    return description, implementation


def _pairs(x):
    """Two neighbouring bytes as a 16-bit number, the first one low."""
    return tirx.reinterpret("uint16x16", x)


def _subset_sums(a):
    """Of 8 bytes a: 2 × 16 bytes, entry e of group g the sum of those a[4g + j] whose bit j of e is set."""
    a = tirx.reinterpret("uint8x32", tirx.Broadcast(tirx.reinterpret("uint64", a), 4))
    taken = [
        llvm_intrin(
            "uint8x32",
            PSHUFB[256],
            2,
            a,
            _constant([4 * g + j if e >> j & 1 else 0x80 for g in range(2) for e in range(16)]),
        )
        for j in range(4)
    ]
    return (taken[0] + taken[1]) + (taken[2] + taken[3])


def _constant(values: list[int]):
    """Bytes as a vector."""
    words = [sum(v << 8 * b for b, v in enumerate(values[i : i + 8])) for i in range(0, 32, 8)]
    return tirx.reinterpret(
        "uint8x32",
        tirx.Shuffle([tirx.Broadcast(tirx.const(n, "uint64"), 4) for n in words], [4 * i + i for i in range(4)]),
    )
