"""x86 without VNNI or VPOPCNTDQ: steps that add in 8 or 16 bits, and steps that widen those sums to int32.

    maddubs16_N   acc[lanes, 2] int16 += Σ_2 a·w                     PMADDUBSW, PADDW
    widen16_N     acc[lanes] int32 += Σ_2 int16[lanes, 2]            PMADDWD by ones, PADDD
    count8_N      acc[lanes, 4] u8 += popcount(a[4] & w[lanes, 4])   AND, PSHUFB, PADDB; no byte of w above 15
    widen8_N      acc[lanes] int32 += Σ_4 u8[lanes, 4]               PMADDUBSW and PMADDWD by ones, PADDD

N is the vector's width in bits, lanes N/32. No step moves data from one output channel's lane to another's.
How many steps fit the narrow lanes says kernels/accumulators.py.
"""

from __future__ import annotations

from functools import cache

from mpcompile.kernels.families.dot_step import DotInstr
from mpcompile.kernels.families.popcount_bytes import ByteCount
from mpcompile.kernels.tvm_names import T, TensorIntrin, llvm_intrin, tirx

MADDUBS = {
    512: "llvm.x86.avx512.pmaddubs.w.512",
    256: "llvm.x86.avx2.pmadd.ub.sw",
    128: "llvm.x86.ssse3.pmadd.ub.sw.128",
}
MADD = {
    512: "llvm.x86.avx512.pmaddw.d.512",
    256: "llvm.x86.avx2.pmadd.wd",
    128: "llvm.x86.sse2.pmadd.wd",
}
PSHUFB = {
    512: "llvm.x86.avx512.pshuf.b.512",
    256: "llvm.x86.avx2.pshuf.b",
    128: "llvm.x86.ssse3.pshuf.b.128",
}


@cache
def maddubs16(bits: int, most: int) -> DotInstr:
    """PMADDUBSW summed in 16 bits for `most` steps, registered with TVM."""
    lanes = bits // 32
    step, widen = f"mpcompile.maddubs16_{bits}", f"mpcompile.widen16_{bits}"
    TensorIntrin.register(step, *_maddubs16(lanes, bits), override=True)
    TensorIntrin.register(widen, *_widen(lanes, 2, "int16", lambda x: _pairs16(x, lanes, bits)), override=True)
    return DotInstr(step, lanes, 4, "uint8", "int8", widen=widen, most=most)


@cache
def count8(bits: int) -> ByteCount:
    """Population counts of bytes summed in 8 bits, registered with TVM."""
    lanes = bits // 32
    step, widen = f"mpcompile.count8_{bits}", f"mpcompile.widen8_{bits}"
    TensorIntrin.register(step, *_count8(lanes, bits), override=True)
    TensorIntrin.register(
        widen, *_widen(lanes, 4, "uint8", lambda x: _pairs16(_pairs8(x, lanes, bits), lanes, bits)), override=True
    )
    return ByteCount(step, widen, lanes, nibbles=True)


def _ones(dtype: str, lanes: int):
    return tirx.Broadcast(tirx.const(1, dtype), lanes)


def _pairs16(x, lanes: int, bits: int):
    """int32: sums of neighbouring int16."""
    return llvm_intrin(f"int32x{lanes}", MADD[bits], 2, x, _ones("int16", 2 * lanes))


def _pairs8(x, lanes: int, bits: int):
    """int16: sums of neighbouring bytes."""
    return llvm_intrin(f"int16x{2 * lanes}", MADDUBS[bits], 2, x, _ones("int8", 4 * lanes))


def _spread(a, lanes: int):
    """4 bytes in every lane."""
    return tirx.reinterpret(f"uint8x{4 * lanes}", tirx.Broadcast(tirx.reinterpret("int32", a), lanes))


def _maddubs16(lanes: int, bits: int):
    @T.prim_func(s_tir=True)
    def description(a: T.handle, b: T.handle, c: T.handle) -> None:
        A = T.match_buffer(a, (4,), "uint8", offset_factor=1)
        B = T.match_buffer(b, (lanes, 4), "int8", offset_factor=1)
        C = T.match_buffer(c, (lanes, 2), "int16", offset_factor=1, scope="local")
        with T.sblock("root"):
            T.reads(C[0:lanes, 0:2], A[0:4], B[0:lanes, 0:4])
            T.writes(C[0:lanes, 0:2])
            for i in range(lanes):
                for h in range(2):
                    for k in range(2):
                        with T.sblock("update"):
                            vi, vh, vk = T.axis.remap("SSR", [i, h, k])
                            C[vi, vh] = C[vi, vh] + T.cast(A[vh * 2 + vk], "int16") * T.cast(
                                B[vi, vh * 2 + vk], "int16"
                            )

    @T.prim_func(s_tir=True)
    def implementation(a: T.handle, b: T.handle, c: T.handle) -> None:
        A = T.match_buffer(a, (4,), "uint8", offset_factor=1)
        B = T.match_buffer(b, (lanes, 4), "int8", offset_factor=1)
        C = T.match_buffer(c, (lanes, 2), "int16", offset_factor=1, scope="local")
        with T.sblock("root"):
            T.reads(C[0:lanes, 0:2], A[0:4], B[0:lanes, 0:4])
            T.writes(C[0:lanes, 0:2])
            C.vstore(
                [0, 0],
                C.vload([0, 0], dtype=f"int16x{2 * lanes}")
                + llvm_intrin(
                    f"int16x{2 * lanes}",
                    MADDUBS[bits],
                    2,
                    _spread(A[T.ramp(0, 1, 4)], lanes),
                    B.vload([0, 0], dtype=f"int8x{4 * lanes}"),
                ),
            )

    return description, implementation


def _widen(lanes: int, parts: int, dtype: str, summed):
    @T.prim_func(s_tir=True)
    def description(b: T.handle, c: T.handle) -> None:
        B = T.match_buffer(b, (lanes, parts), dtype, offset_factor=1, scope="local")
        C = T.match_buffer(c, (lanes,), "int32", offset_factor=1, scope="local")
        with T.sblock("root"):
            T.reads(C[0:lanes], B[0:lanes, 0:parts])
            T.writes(C[0:lanes])
            for i in range(lanes):
                for k in range(parts):
                    with T.sblock("update"):
                        vi, vk = T.axis.remap("SR", [i, k])
                        C[vi] = C[vi] + T.cast(B[vi, vk], "int32")

    @T.prim_func(s_tir=True)
    def implementation(b: T.handle, c: T.handle) -> None:
        B = T.match_buffer(b, (lanes, parts), dtype, offset_factor=1, scope="local")
        C = T.match_buffer(c, (lanes,), "int32", offset_factor=1, scope="local")
        with T.sblock("root"):
            T.reads(C[0:lanes], B[0:lanes, 0:parts])
            T.writes(C[0:lanes])
            C[T.ramp(0, 1, lanes)] = C[T.ramp(0, 1, lanes)] + summed(B.vload([0, 0], dtype=f"{dtype}x{parts * lanes}"))

    return description, implementation


def _count8(lanes: int, bits: int):
    @T.prim_func(s_tir=True)
    def description(a: T.handle, w: T.handle, c: T.handle) -> None:
        A = T.match_buffer(a, (4,), "uint8", offset_factor=1)
        W = T.match_buffer(w, (lanes, 4), "uint8", offset_factor=1)
        C = T.match_buffer(c, (lanes, 4), "uint8", offset_factor=1, scope="local")
        with T.sblock("root"):
            T.reads(C[0:lanes, 0:4], A[0:4], W[0:lanes, 0:4])
            T.writes(C[0:lanes, 0:4])
            for i in range(lanes):
                for k in range(4):
                    with T.sblock("update"):
                        vi, vk = T.axis.remap("SS", [i, k])
                        C[vi, vk] = C[vi, vk] + T.popcount(A[vk] & W[vi, vk])

    @T.prim_func(s_tir=True)
    def implementation(a: T.handle, w: T.handle, c: T.handle) -> None:
        A = T.match_buffer(a, (4,), "uint8", offset_factor=1)
        W = T.match_buffer(w, (lanes, 4), "uint8", offset_factor=1)
        C = T.match_buffer(c, (lanes, 4), "uint8", offset_factor=1, scope="local")
        with T.sblock("root"):
            T.reads(C[0:lanes, 0:4], A[0:4], W[0:lanes, 0:4])
            T.writes(C[0:lanes, 0:4])
            C.vstore(
                [0, 0],
                _counted(
                    C.vload([0, 0], dtype=f"uint8x{4 * lanes}"),
                    A[T.ramp(0, 1, 4)],
                    W.vload([0, 0], dtype=f"uint8x{4 * lanes}"),
                    lanes,
                    bits,
                ),
            )

    return description, implementation


def _counted(c, a, w, lanes: int, bits: int):
    """c + popcount of each byte of a & w, all at most 15."""
    dtype = f"uint8x{4 * lanes}"
    counts = [sum(bin(4 * i + b).count("1") << 8 * b for b in range(4)) for i in range(4)]
    table = tirx.reinterpret(
        dtype,
        tirx.Shuffle(
            [tirx.Broadcast(tirx.const(n, "uint32"), lanes) for n in counts],
            [lane % 4 * lanes for lane in range(lanes)],
        ),
    )
    return c + llvm_intrin(dtype, PSHUFB[bits], 2, table, _spread(a, lanes) & w)
