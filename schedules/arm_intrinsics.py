"""NEON steps as tensor intrinsics. All operate on 128-bit vectors; no step moves data across the lanes of a vector
that belong to different output channels.

    count_u16     acc[16, 2] u16 += popcount(a[4] & w[16, 4]), two bytes'   AND, CNT, UADALP
    widen_u16     acc[16] int32 += acc[16, 2] u16                           UADALP
    sdot          acc[16] int32 += Σ_4 a·w, of signed bytes                 SDOT by element
    smlal, smull  acc[16] int32 += Σ_2 a·w, two steps or one a 16-bit sum   SMULL, SMLAL, SADALP

On 64-bit ARM the reductions of whole blocks of 16 channels are micro-kernels (arm_microkernels.py); these steps serve
32-bit ARM and layers of fewer channels.

Weights of more than 8 bits (of groups, which no sum of their channels serves) take 16-bit products without an intrinsic.
A name has the instruction set as its prefix, since 32-bit ARM's intrinsics have other names.
"""

from __future__ import annotations

from functools import cache

from mpcompile.kernels.families.dot_step import DotInstr
from mpcompile.kernels.families.popcount_bytes import BYTES, ByteCount
from mpcompile.kernels.tvm_names import T, TensorIntrin, llvm_intrin, tirx

LANES = 4
"""32-bit lanes of a vector."""

BLOCK = 16
"""Output channels whose weights lie together: the four vectors of a cache line."""


def _pairs_u8(isa: str, x):
    """uint16x8: sums of neighbouring bytes."""
    name = {"aarch64": "llvm.aarch64.neon.uaddlp", "armv7l": "llvm.arm.neon.vpaddlu"}[isa]
    return llvm_intrin("uint16x8", name, 2, x)


def _pairs_u16(isa: str, x):
    """int32x4: sums of neighbouring 16-bit numbers. With an addition it becomes UADALP."""
    name = {"aarch64": "llvm.aarch64.neon.uaddlp", "armv7l": "llvm.arm.neon.vpaddlu"}[isa]
    return llvm_intrin("int32x4", name, 2, x)


def _pairs_s16(isa: str, x):
    """int32x4: sums of neighbouring signed 16-bit numbers. With an addition it becomes SADALP."""
    name = {"aarch64": "llvm.aarch64.neon.saddlp", "armv7l": "llvm.arm.neon.vpaddls"}[isa]
    return llvm_intrin("int32x4", name, 2, x)


def _products(isa: str, a, w):
    """int16x8 of two int8x8. The sum of two of them becomes SMULL and SMLAL."""
    name = {"aarch64": "llvm.aarch64.neon.smull", "armv7l": "llvm.arm.neon.vmulls"}[isa]
    return llvm_intrin("int16x8", name, 1, a, w)


# -- popcount ------------------------------------------------------------------------------------


def _counts(a, w):
    both = tirx.reinterpret("uint8x16", tirx.Broadcast(tirx.reinterpret("int32", a), LANES)) & w
    return llvm_intrin("uint8x16", "llvm.ctpop", 1, both)


@cache
def count(isa: str, lanes: int) -> ByteCount:
    """The counting step of a CPU, registered with TVM where it is no micro-kernel."""
    if isa == "aarch64" and lanes == BLOCK:
        return ByteCount("", "", lanes, 2, whole=True)
    step, widen = f"mpcompile.{isa}.count_u16_{lanes}", f"mpcompile.{isa}.widen_u16_{lanes}"
    TensorIntrin.register(step, *_count_pairs(isa, lanes), override=True)
    TensorIntrin.register(widen, *_widen(isa, lanes), override=True)
    return ByteCount(step, widen, lanes, 2)


def _count_pairs(isa: str, lanes: int):
    @T.prim_func(s_tir=True)
    def description(a: T.handle, w: T.handle, c: T.handle) -> None:
        A = T.match_buffer(a, (BYTES,), "uint8", offset_factor=1)
        W = T.match_buffer(w, (lanes, BYTES), "uint8", offset_factor=1)
        C = T.match_buffer(c, (lanes, 2), "uint16", offset_factor=1, scope="local")
        with T.sblock("root"):
            T.reads(C[0:lanes, 0:2], A[0:BYTES], W[0:lanes, 0:BYTES])
            T.writes(C[0:lanes, 0:2])
            for i in range(lanes):
                for h in range(2):
                    for k in range(2):
                        with T.sblock("update"):
                            vi, vh, vk = T.axis.remap("SSR", [i, h, k])
                            C[vi, vh] = C[vi, vh] + T.cast(T.popcount(A[vh * 2 + vk] & W[vi, vh * 2 + vk]), "uint16")

    @T.prim_func(s_tir=True)
    def implementation(a: T.handle, w: T.handle, c: T.handle) -> None:
        A = T.match_buffer(a, (BYTES,), "uint8", offset_factor=1)
        W = T.match_buffer(w, (lanes, BYTES), "uint8", offset_factor=1)
        C = T.match_buffer(c, (lanes, 2), "uint16", offset_factor=1, scope="local")
        with T.sblock("root"):
            T.reads(C[0:lanes, 0:2], A[0:BYTES], W[0:lanes, 0:BYTES])
            T.writes(C[0:lanes, 0:2])
            for v in T.unroll(lanes // LANES):
                C.vstore(
                    [v * LANES, 0],
                    C.vload([v * LANES, 0], dtype="uint16x8")
                    + _pairs_u8(isa, _counts(A[T.ramp(0, 1, BYTES)], W.vload([v * LANES, 0], dtype="uint8x16"))),
                )

    return description, implementation


def _widen(isa: str, lanes: int):
    @T.prim_func(s_tir=True)
    def description(b: T.handle, c: T.handle) -> None:
        B = T.match_buffer(b, (lanes, 2), "uint16", offset_factor=1, scope="local")
        C = T.match_buffer(c, (lanes,), "int32", offset_factor=1, scope="local")
        with T.sblock("root"):
            T.reads(C[0:lanes], B[0:lanes, 0:2])
            T.writes(C[0:lanes])
            for i in range(lanes):
                for h in range(2):
                    with T.sblock("update"):
                        vi, vh = T.axis.remap("SR", [i, h])
                        C[vi] = C[vi] + T.cast(B[vi, vh], "int32")

    @T.prim_func(s_tir=True)
    def implementation(b: T.handle, c: T.handle) -> None:
        B = T.match_buffer(b, (lanes, 2), "uint16", offset_factor=1, scope="local")
        C = T.match_buffer(c, (lanes,), "int32", offset_factor=1, scope="local")
        with T.sblock("root"):
            T.reads(C[0:lanes], B[0:lanes, 0:2])
            T.writes(C[0:lanes])
            for v in T.unroll(lanes // LANES):
                C[T.ramp(v * LANES, 1, LANES)] = C[T.ramp(v * LANES, 1, LANES)] + _pairs_u16(
                    isa, B.vload([v * LANES, 0], dtype="uint16x8")
                )

    return description, implementation


# -- dot -----------------------------------------------------------------------------------------


def dot_instruction(
    isa: str, dotprod: bool, max_level: int, weights: tuple[int, int], channels: int, eight_bits: bool = False
) -> DotInstr:
    """The best exact step for levels 0..max_level, weights (least, greatest) and so many output channels; products are
    added in 8 bits where they fit and `eight_bits` says that it pays.

    SDOT and SMULL take signed bytes: levels above 127 are shifted by 128. SMLAL's sum of two products overflows 16 bits
    only where both factors of both are −128.
    """
    lanes = BLOCK if channels % BLOCK == 0 else LANES
    shift = 128 if max_level > 127 else 0
    if weights[0] < -128 or weights[1] > 127:
        return DotInstr("", LANES, 1, "int16", "int16")
    data = "int8" if shift else "uint8"
    if isa == "aarch64" and lanes == BLOCK:
        return _whole(dotprod, max(max_level - shift, shift), max(-weights[0], weights[1]), data, shift, eight_bits)
    if dotprod:
        return _register("sdot", isa, lanes, 4, data, "int8", shift, 2)
    kind = "smull" if shift and weights[0] == -128 else "smlal"
    return _register(kind, isa, max(lanes, 8), 2, data, "int8", shift, 2)


def _whole(dotprod: bool, data_reach: int, weight_reach: int, data: str, shift: int, eight_bits: bool) -> DotInstr:
    """A micro-kernel's step (arm_microkernels.py), for |activations| and |weights| of up to so much.

    A 16-bit lane takes a product of each step of `smlal`, and two of `mla`, after they were added in 8 bits.
    """
    product = max(data_reach * weight_reach, 1)
    if dotprod:
        return DotInstr("", BLOCK, 4, data, "int8", shift, 4, whole="sdot")
    if eight_bits and product <= 127:
        return DotInstr(
            "", BLOCK, 4, data, "int8", shift, 4, most=32767 // (2 * product), whole="mla", run=127 // product
        )
    return DotInstr("", BLOCK, 2, data, "int8", shift, 8, whole="smlal", run=32767 // product)


@cache
def _register(kind: str, isa: str, lanes: int, group: int, data: str, weight: str, shift: int, steps: int) -> DotInstr:
    """Register `<name>_x1` and `<name>_x<steps>`; the step's record."""
    name = f"mpcompile.{isa}.{kind}_{lanes}_{data}"
    for n in {1, steps}:
        TensorIntrin.register(f"{name}_x{n}", *_dot(kind, isa, lanes, group, data, weight, n), override=True)
    return DotInstr(name, lanes, group, data, weight, shift, steps)


def _dot(kind: str, isa: str, lanes: int, group: int, data: str, weight: str, steps: int):
    depth = steps * group
    shape = (steps, lanes, group) if steps > 1 else (lanes, group)  # a loop of one step is none to TVM

    @T.prim_func(s_tir=True)
    def one(a: T.handle, w: T.handle, c: T.handle) -> None:
        A = T.match_buffer(a, (depth,), data, offset_factor=1)
        W = T.match_buffer(w, (lanes, group), weight, offset_factor=1)
        C = T.match_buffer(c, (lanes,), "int32", offset_factor=1, scope="local")
        with T.sblock("root"):
            T.reads(C[0:lanes], A[0:depth], W[0:lanes, 0:group])
            T.writes(C[0:lanes])
            for i in range(lanes):
                for k in range(group):
                    with T.sblock("update"):
                        vi, vk = T.axis.remap("SR", [i, k])
                        C[vi] = C[vi] + T.cast(A[vk], "int32") * T.cast(W[vi, vk], "int32")

    @T.prim_func(s_tir=True)
    def several(a: T.handle, w: T.handle, c: T.handle) -> None:
        A = T.match_buffer(a, (depth,), data, offset_factor=1)
        W = T.match_buffer(w, (steps, lanes, group), weight, offset_factor=1)
        C = T.match_buffer(c, (lanes,), "int32", offset_factor=1, scope="local")
        with T.sblock("root"):
            T.reads(C[0:lanes], A[0:depth], W[0:steps, 0:lanes, 0:group])
            T.writes(C[0:lanes])
            for s in range(steps):
                for i in range(lanes):
                    for k in range(group):
                        with T.sblock("update"):
                            vi, vs, vk = T.axis.remap("SRR", [i, s, k])
                            C[vi] = C[vi] + T.cast(A[vs * group + vk], "int32") * T.cast(W[vs, vi, vk], "int32")

    product = {"sdot": _sdot, "smlal": _smlal, "smull": _smull}[kind]
    whole = tuple(slice(0, n, 1) for n in shape)

    @T.prim_func(s_tir=True)
    def implementation(a: T.handle, w: T.handle, c: T.handle) -> None:
        A = T.match_buffer(a, (depth,), data, offset_factor=1)
        W = T.match_buffer(w, shape, weight, offset_factor=1)
        C = T.match_buffer(c, (lanes,), "int32", offset_factor=1, scope="local")
        with T.sblock("root"):
            T.reads(C[0:lanes], A[0:depth], W[whole])
            T.writes(C[0:lanes])
            for v in T.unroll(lanes // LANES):
                C[T.ramp(v * LANES, 1, LANES)] = product(
                    isa,
                    C[T.ramp(v * LANES, 1, LANES)],
                    A[T.ramp(0, 1, depth)],
                    [
                        W.vload([s, v * LANES, 0][-len(shape) :], dtype=f"{weight}x{LANES * group}")
                        for s in range(steps)
                    ],
                )

    return several if steps > 1 else one, implementation


def _sdot(isa: str, c, a, w: list):
    """Four lanes of four products a step. The activations stay in one register, whose fourths SDOT takes by element."""
    for i, weights in enumerate(w):
        spread = tirx.reinterpret("int8x16", _element("int32", a, i, len(w)))
        c = llvm_intrin("int32x4", "llvm.aarch64.neon.sdot", 3, c, weights, spread)
    return c


def _element(dtype: str, a, i: int, count: int):
    """Element i of `a`, seen as `count` elements of a dtype, in four lanes."""
    element = (
        tirx.reinterpret(dtype, a)
        if count == 1
        else tirx.Shuffle([tirx.reinterpret(f"{dtype}x{count}", a)], [tirx.const(i, "int32")])
    )
    return tirx.Broadcast(element, LANES)


def _pair(a, i: int, steps: int):
    """Bytes 2i and 2i + 1 in all lanes of an int8x8."""
    return tirx.reinterpret("int8x8", _element("int16", a, i, steps))


def _smlal(isa: str, c, a, w: list):
    """Four lanes of two products a step; two steps meet in a 16-bit sum."""
    total = None
    for i, weights in enumerate(w):
        products = _products(isa, weights, _pair(a, i, len(w)))
        total = products if total is None else total + products
    return c + _pairs_s16(isa, total)


def _smull(isa: str, c, a, w: list):
    """The same, every product widened before it is added."""
    for i, weights in enumerate(w):
        c = c + _pairs_s16(isa, _products(isa, weights, _pair(a, i, len(w))))
    return c
