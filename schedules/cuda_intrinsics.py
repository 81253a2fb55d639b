"""Tensor intrinsics of CUDA devices, as functions of CUDA C that are given with their calls.

With MPCOMPILE_EMULATE a compiler for CPUs is told what an instruction does (tests/cuda/emulate).
"""

from __future__ import annotations

from mpcompile.kernels.tvm_names import T, TensorIntrin, tirx

DP4A = "mpcompile.dp4a_u8s8"

_DP4A = """
#ifndef MPC_DP4A
#define MPC_DP4A
__forceinline__ __device__ int mpc_dp4a_u8s8(const void* levels, const void* weights, int sum) {
  unsigned a = *(const unsigned*)levels, b = *(const unsigned*)weights;
#ifdef MPCOMPILE_EMULATE
  return emulate_dp4a_u8s8(a, b, sum);
#else
  asm("dp4a.u32.s32 %0, %1, %2, %0;" : "+r"(sum) : "r"(a), "r"(b));
  return sum;
#endif
}
#endif
"""
"""Four unsigned bytes, the first in the lowest bits, times four signed ones, added to a sum."""


def _dp4a():
    """acc[1] += Σ a[4]·w[4]; both begin at a multiple of 4 bytes."""

    @T.prim_func(s_tir=True)
    def definition(a: T.handle, w: T.handle, c: T.handle) -> None:
        A = T.match_buffer(a, (4,), "uint8", offset_factor=4)
        W = T.match_buffer(w, (4,), "int8", offset_factor=4)
        C = T.match_buffer(c, (1,), "int32", offset_factor=1, scope="local")
        with T.sblock("root"):
            T.reads(C[0:1], A[0:4], W[0:4])
            T.writes(C[0:1])
            for g in T.serial(0, 4):
                with T.sblock("product"):
                    vg = T.axis.remap("R", [g])
                    C[0] = C[0] + T.Cast("int32", A[vg]) * T.Cast("int32", W[vg])

    @T.prim_func(s_tir=True)
    def implementation(a: T.handle, w: T.handle, c: T.handle) -> None:
        A = T.match_buffer(a, (4,), "uint8", offset_factor=4)
        W = T.match_buffer(w, (4,), "int8", offset_factor=4)
        C = T.match_buffer(c, (1,), "int32", offset_factor=1, scope="local")
        with T.sblock("root"):
            T.reads(C[0:1], A[0:4], W[0:4])
            T.writes(C[0:1])
            C[0] = tirx.call_intrin(
                "int32", "tirx.cuda.func_call", "mpc_dp4a_u8s8", A.access_ptr("r"), W.access_ptr("r"), C[0], _DP4A
            )

    return definition, implementation


TensorIntrin.register(DP4A, *_dp4a(), override=True)
