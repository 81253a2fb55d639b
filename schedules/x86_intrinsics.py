"""x86 dot-product steps as tensor intrinsics: acc[lanes] += Σ_group a[group]·w[lanes, group].

The activations are broadcast to all lanes.

TVM's own VNNI intrinsic does not build with LLVM 22, whose VPDPBUSD takes bytes; these pass uint8/int8 vectors.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache, partial
from operator import add

from mpcompile.kernels.accumulators import int16_steps
from mpcompile.kernels.families.dot_step import DotInstr
from mpcompile.kernels.tvm_names import T, TensorIntrin, llvm_intrin, tirx
from mpcompile.kernels.wrapping import wrapped_sum
from mpcompile.schedules.x86_narrow import MADD, MADDUBS, maddubs16

# name → (lanes, group, data dtype, weight dtype); the suffix is the vector's width in bits
SHAPES = {
    "vnni_512": (16, 4, "uint8", "int8"),
    "dpwssd_512": (16, 2, "int16", "int16"),
    **{f"maddubs_{bits}": (bits // 32, 4, "uint8", "int8") for bits in (512, 256, 128)},
    **{f"madd_{bits}": (bits // 32, 2, "int16", "int16") for bits in (512, 256, 128)},
}


def vector_for(bits: int, channels: int) -> int:
    """The widest vector of 32-bit lanes, of at most `bits`, that so many output channels fill."""
    while channels % (bits // 32):
        bits //= 2
    return bits


def dot_instruction(vector_bits: int, vnni: bool, max_level: int, weights: tuple[int, int], channels: int) -> DotInstr:
    """The best step of a CPU for levels 0..max_level, weights (least, greatest) and so many output channels.

    All are exact.
    """
    vector_bits = vector_for(vector_bits, channels)
    if weights[0] < -128 or weights[1] > 127:
        kind = "madd"
    elif vnni and vector_bits == 512:
        kind = "vnni"
    else:
        most = int16_steps(max_level, weights)
        if most > 1:
            return maddubs16(vector_bits, 1 << most.bit_length() - 1)  # few different ones: kernels are shared
        kind = "maddubs" if most else "madd"
    return register(f"{kind}_{vector_bits}")


def tile_instruction(vector_bits: int, vnni: bool, bits: int, channels: int) -> DotInstr | None:
    """The step of products of operands of 16 bits, or of 8, whose sums wrap; None where there is none."""
    vector_bits = vector_for(vector_bits, channels)
    if not (vnni and vector_bits == 512):
        return register(f"madd_{vector_bits}") if bits == 16 else None
    instr = register("vnni_512" if bits == 8 else "dpwssd_512")
    return replace(instr, wrapping=instr.intrin)


@cache
def register(name: str) -> DotInstr:
    """Register the tensor intrinsic `mpcompile.<name>` with TVM; returns its record."""
    lanes, group, data, weight = SHAPES[name]
    kind, bits = name.split("_")
    step = {"vnni": _vnni, "dpwssd": _dpwssd, "maddubs": _maddubs, "madd": _madd}[kind](lanes, int(bits))
    shape = (lanes, group, data, weight)
    TensorIntrin.register(f"mpcompile.{name}", _description(*shape), _implementation(*shape, step), override=True)
    if kind != "madd":
        return DotInstr(f"mpcompile.{name}", *shape)
    wrapping = _implementation(*shape, _madd(lanes, int(bits), partial(wrapped_sum, lanes=lanes)))
    TensorIntrin.register(f"mpcompile.{name}_wrapping", _description(*shape), wrapping, override=True)
    return DotInstr(f"mpcompile.{name}", *shape, wrapping=f"mpcompile.{name}_wrapping")


def _description(lanes: int, group: int, data: str, weight: str):
    @T.prim_func(s_tir=True)
    def description(a: T.handle, b: T.handle, c: T.handle) -> None:
        A = T.match_buffer(a, (group,), data, offset_factor=1)
        B = T.match_buffer(b, (lanes, group), weight, offset_factor=1)
        C = T.match_buffer(c, (lanes,), "int32", offset_factor=1, scope="local")
        with T.sblock("root"):
            T.reads(C[0:lanes], A[0:group], B[0:lanes, 0:group])
            T.writes(C[0:lanes])
            for i in range(lanes):
                for k in range(group):
                    with T.sblock("update"):
                        vi, vk = T.axis.remap("SR", [i, k])
                        C[vi] = C[vi] + T.cast(A[vk], "int32") * T.cast(B[vi, vk], "int32")

    return description


def _implementation(lanes: int, group: int, data: str, weight: str, step):
    """A PrimFunc that loads a group of activations and the weights.

    It stores `step(accumulator, activations, weights)`.
    """

    @T.prim_func(s_tir=True)
    def implementation(a: T.handle, b: T.handle, c: T.handle) -> None:
        A = T.match_buffer(a, (group,), data, offset_factor=1)
        B = T.match_buffer(b, (lanes, group), weight, offset_factor=1)
        C = T.match_buffer(c, (lanes,), "int32", offset_factor=1, scope="local")
        with T.sblock("root"):
            T.reads(C[0:lanes], A[0:group], B[0:lanes, 0:group])
            T.writes(C[0:lanes])
            C[T.ramp(0, 1, lanes)] = step(
                C[T.ramp(0, 1, lanes)], A[T.ramp(0, 1, group)], B.vload([0, 0], dtype=f"{weight}x{lanes * group}")
            )

    return implementation


def _broadcast(a, lanes: int, dtype: str, of: int):
    """32 bits of activations in every lane, as a vector of `of` elements a lane."""
    return tirx.reinterpret(f"{dtype}x{of * lanes}", tirx.Broadcast(tirx.reinterpret("int32", a), lanes))


def _vnni(lanes: int, bits: int):
    def step(c, a, b):
        return llvm_intrin(f"int32x{lanes}", "llvm.x86.avx512.vpdpbusd.512", 3, c, _broadcast(a, lanes, "uint8", 4), b)

    return step


def _dpwssd(lanes: int, bits: int):
    def step(c, a, b):
        return llvm_intrin(f"int32x{lanes}", "llvm.x86.avx512.vpdpwssd.512", 3, c, _broadcast(a, lanes, "int16", 2), b)

    return step


def _maddubs(lanes: int, bits: int):
    def step(c, a, b):
        pairs = llvm_intrin(f"int16x{2 * lanes}", MADDUBS[bits], 2, _broadcast(a, lanes, "uint8", 4), b)
        ones = tirx.Broadcast(tirx.const(1, "int16"), 2 * lanes)
        return c + llvm_intrin(f"int32x{lanes}", MADD[bits], 2, pairs, ones)

    return step


def _madd(lanes: int, bits: int, plus=add):
    def step(c, a, b):
        return plus(c, llvm_intrin(f"int32x{lanes}", MADD[bits], 2, _broadcast(a, lanes, "int16", 2), b))

    return step
