"""Tensor cores of CUDA devices, as tensor intrinsics on words of 32 bits: mma.m16n8k256 of bits, and ldmatrix.

A warp's 32 lanes hold a tile together ("fragments", PTX ISA, "Matrix Fragments for mma.m16n8k256"). By (lane, register):

    A 16 rows × 8 words                 B 16 columns × 8 words              C 16 × 16, two products of 8 columns
              words 0-3   words 4-7               words 0-3   words 4-7              columns 0-7     columns 8-15
    rows 0-7  (4i+k, 0)   (4i+k, 2)     0-7       (4j+k, 0)   (4j+k, 1)    rows 0-7  (4i+j/2, j%2)   (…, 4 + j%2)
    rows 8-15 (4i+k, 1)   (4i+k, 3)     8-15      (4j+k, 2)   (4j+k, 3)    rows 8-15 (4i+j/2, 2+j%2) (…, 6 + j%2)

where i, j, k count from the first of their eight (four) on. ldmatrix fetches four 8×4-word quarters at once: lane t gives
the address of row t % 8 of quarter t / 8.
"""

from __future__ import annotations

from mpcompile.kernels.tvm_names import T, TensorIntrin, tirx

LOAD_A, LOAD_B = "mpcompile.ldmatrix_a", "mpcompile.ldmatrix_b"
FILL, MMA, STORE = "mpcompile.mma_fill", "mpcompile.mma_b1", "mpcompile.mma_store"

_MMA = """
#ifndef MPC_MMA_B1
#define MPC_MMA_B1
__forceinline__ __device__ void mpc_mma_b1(int* d, const unsigned* a, const unsigned* b) {
#ifdef MPCOMPILE_EMULATE
  emulate_mma_b1(d, a, b);
#else
  asm("mma.sync.aligned.m16n8k256.row.col.s32.b1.b1.s32.and.popc "
      "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
      : "+r"(d[0]), "+r"(d[1]), "+r"(d[2]), "+r"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#endif
}
#endif
"""
_LDMATRIX = """
#ifndef MPC_LDMATRIX
#define MPC_LDMATRIX
__forceinline__ __device__ void mpc_ldmatrix_x4(unsigned* r, const void* row) {
#ifdef MPCOMPILE_EMULATE
  emulate_ldmatrix_x4(r, row);
#else
  unsigned at = (unsigned)__cvta_generic_to_shared(row);
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
      : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(at));
#endif
}
#endif
"""


def a_at(i, k):
    return 4 * (i % 8) + k % 4, (k // 4) * 2 + i // 8


def b_at(j, k):
    return 4 * (j % 8) + k % 4, (j // 8) * 2 + k // 4


def c_at(i, j):
    return 4 * (i % 8) + (j % 8) // 2, (j // 8) * 4 + (i // 8) * 2 + j % 2


def _call(name: str, source: str, *args):
    return tirx.call_intrin("handle", "tirx.cuda.func_call", name, *args, source)


def _load(at, row, word):
    """(definition, implementation) of ldmatrix: 16×8 words of shared memory to a fragment whose elements are `at`; lane t
    gives the address of (row(t), word(t))."""

    @T.prim_func(s_tir=True)
    def definition(w: T.handle, s: T.handle) -> None:
        S = T.match_buffer(s, (16, 8), "uint32", align=64, offset_factor=4, scope="shared")
        W = T.match_buffer(w, (32, 4), "uint32", align=64, offset_factor=4, scope="warp")
        with T.sblock("root"):
            T.reads(S[0:16, 0:8])
            T.writes(W[0:32, 0:4])
            for i, k in T.grid(16, 8):
                with T.sblock("load"):
                    vi, vk = T.axis.remap("SS", [i, k])
                    T.reads(S[vi, vk])
                    lane, reg = T.meta_var(at(vi, vk))
                    T.writes(W[lane, reg])
                    W[lane, reg] = S[vi, vk]

    @T.prim_func(s_tir=True)
    def implementation(w: T.handle, s: T.handle) -> None:
        s0 = T.int32()
        s1 = T.int32()
        S = T.match_buffer(s, (16, 8), "uint32", align=64, offset_factor=4, scope="shared", strides=[s0, s1])
        W = T.match_buffer(w, (32, 4), "uint32", align=64, offset_factor=4, scope="warp")
        with T.sblock("root"):
            T.reads(S[0:16, 0:8])
            T.writes(W[0:32, 0:4])
            for tx in T.thread_binding(0, 32, "threadIdx.x"):
                for r in T.unroll(4):
                    # TVM finds the layout of a warp buffer by stores; ldmatrix overwrites this one
                    W[tx, r] = T.uint32(0)
                T.evaluate(
                    _call(
                        "mpc_ldmatrix_x4",
                        _LDMATRIX,
                        T.address_of(W[tx, 0]),
                        S.access_ptr("r", offset=row(tx) * s0 + word(tx)),
                    )
                )

    return definition, implementation


def _mma():
    """C[16, 16] += A[16, 8 words] · B[16, 8 words], by two instructions of 8 columns."""

    @T.prim_func(s_tir=True)
    def definition(a: T.handle, b: T.handle, c: T.handle) -> None:
        A = T.match_buffer(a, (32, 4), "uint32", align=64, offset_factor=4, scope="warp")
        B = T.match_buffer(b, (32, 4), "uint32", align=64, offset_factor=4, scope="warp")
        C = T.match_buffer(c, (32, 8), "int32", align=64, offset_factor=4, scope="warp")
        with T.sblock("root"):
            T.reads(C[0:32, 0:8], A[0:32, 0:4], B[0:32, 0:4])
            T.writes(C[0:32, 0:8])
            for i, j, k in T.grid(16, 16, 8):
                with T.sblock("C"):
                    vi, vj, vk = T.axis.remap("SSR", [i, j, k])
                    al, ar = T.meta_var(a_at(vi, vk))
                    bl, br = T.meta_var(b_at(vj, vk))
                    cl, cr = T.meta_var(c_at(vi, vj))
                    T.reads(C[cl, cr], A[al, ar], B[bl, br])
                    T.writes(C[cl, cr])
                    C[cl, cr] = C[cl, cr] + T.Cast("int32", tirx.popcount(A[al, ar] & B[bl, br]))

    @T.prim_func(s_tir=True)
    def implementation(a: T.handle, b: T.handle, c: T.handle) -> None:
        A = T.match_buffer(a, (32, 4), "uint32", align=64, offset_factor=4, scope="warp")
        B = T.match_buffer(b, (32, 4), "uint32", align=64, offset_factor=4, scope="warp")
        C = T.match_buffer(c, (32, 8), "int32", align=64, offset_factor=4, scope="warp")
        with T.sblock("root"):
            T.reads(C[0:32, 0:8], A[0:32, 0:4], B[0:32, 0:4])
            T.writes(C[0:32, 0:8])
            for tx in T.thread_binding(0, 32, "threadIdx.x"):
                T.evaluate(
                    _call("mpc_mma_b1", _MMA, T.address_of(C[tx, 0]), T.address_of(A[tx, 0]), T.address_of(B[tx, 0]))
                )
                T.evaluate(
                    _call("mpc_mma_b1", _MMA, T.address_of(C[tx, 4]), T.address_of(A[tx, 0]), T.address_of(B[tx, 2]))
                )

    return definition, implementation


def _fill():
    """C[16, 16] = 0."""

    @T.prim_func(s_tir=True)
    def definition(c: T.handle) -> None:
        C = T.match_buffer(c, (32, 8), "int32", align=64, offset_factor=4, scope="warp")
        with T.sblock("root"):
            T.reads()
            T.writes(C[0:32, 0:8])
            for i, j in T.grid(16, 16):
                with T.sblock("init"):
                    vi, vj = T.axis.remap("SS", [i, j])
                    cl, cr = T.meta_var(c_at(vi, vj))
                    T.reads()
                    T.writes(C[cl, cr])
                    C[cl, cr] = 0

    @T.prim_func(s_tir=True)
    def implementation(c: T.handle) -> None:
        C = T.match_buffer(c, (32, 8), "int32", align=64, offset_factor=4, scope="warp")
        with T.sblock("root"):
            T.reads()
            T.writes(C[0:32, 0:8])
            for tx in T.thread_binding(0, 32, "threadIdx.x"):
                for r in T.unroll(8):
                    C[tx, r] = 0

    return definition, implementation


def _store():
    """C[16, 16] to shared memory, two neighbouring columns at once."""

    @T.prim_func(s_tir=True)
    def definition(c: T.handle, g: T.handle) -> None:
        C = T.match_buffer(c, (32, 8), "int32", align=64, offset_factor=4, scope="warp")
        G = T.match_buffer(g, (16, 16), "int32", align=64, offset_factor=2, scope="shared")
        with T.sblock("root"):
            T.reads(C[0:32, 0:8])
            T.writes(G[0:16, 0:16])
            for i, j in T.grid(16, 16):
                with T.sblock("store"):
                    vi, vj = T.axis.remap("SS", [i, j])
                    cl, cr = T.meta_var(c_at(vi, vj))
                    T.reads(C[cl, cr])
                    T.writes(G[vi, vj])
                    G[vi, vj] = C[cl, cr]

    @T.prim_func(s_tir=True)
    def implementation(c: T.handle, g: T.handle) -> None:
        s0 = T.int32()
        s1 = T.int32()
        C = T.match_buffer(c, (32, 8), "int32", align=64, offset_factor=4, scope="warp")
        G = T.match_buffer(g, (16, 16), "int32", align=64, offset_factor=2, scope="shared", strides=[s0, s1])
        with T.sblock("root"):
            T.reads(C[0:32, 0:8])
            T.writes(G[0:16, 0:16])
            for tx in T.thread_binding(0, 32, "threadIdx.x"):
                for h in T.unroll(4):
                    for v in T.vectorized(2):
                        G[h % 2 * 8 + tx // 4, h // 2 * 8 + tx % 4 * 2 + v] = C[tx, h * 2 + v]

    return definition, implementation


for _name, _pair in (
    (LOAD_A, _load(a_at, lambda t: t % 16, lambda t: 4 * (t // 16))),
    (LOAD_B, _load(b_at, lambda t: t % 8 + 8 * (t // 16), lambda t: 4 * (t % 16 // 8))),
    (MMA, _mma()),
    (FILL, _fill()),
    (STORE, _store()),
):
    TensorIntrin.register(_name, *_pair, override=True)
