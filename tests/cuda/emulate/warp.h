// What a warp does together: ldmatrix, mma. Fragments are those of the PTX ISA, "Matrix Fragments for mma.m16n8k256".
#pragma once
#include "language.h"
#include "threads.h"

// Four 8×8 matrices of 16-bit pairs, that is of rows of 16 bytes: lane 8m + i gives the address of row i of matrix m, and
// lane t gets of each matrix word t % 4 of row t / 4.
static inline void emulate_ldmatrix_x4(unsigned* registers, const void* row) {
  if ((uintptr_t)row % 16) {
    fprintf(stderr, "emulate: ldmatrix of an address that 16 does not divide\n");
    abort();
  }
  auto all = emulate::exchange(row);
  int t = emulate::now->lane;
  unsigned found[4];
  for (int m = 0; m < 4; ++m) found[m] = ((const unsigned*)all[8 * m + t / 4])[t % 4];
  emulate::release();
  memcpy(registers, found, sizeof found);
}

namespace emulate {

struct Operands { unsigned a[4], b[2]; };

// d[16, 8] += a[16, 8 words] · b[8 words, 8]; `dot` of a pair of words.
template <class Dot> static void mma(int* d, const unsigned* a, const unsigned* b, Dot dot) {
  Operands mine;
  memcpy(mine.a, a, sizeof mine.a), memcpy(mine.b, b, sizeof mine.b);
  auto all = exchange(&mine);
  int t = now->lane;
  for (int r = 0; r < 4; ++r) {
    int row = t / 4 + r / 2 * 8, column = t % 4 * 2 + r % 2;
    for (int k = 0; k < 8; ++k)
      d[r] += dot(((const Operands*)all[row % 8 * 4 + k % 4])->a[k / 4 * 2 + row / 8],
                  ((const Operands*)all[column * 4 + k % 4])->b[k / 4]);
  }
  release();
}

}  // namespace emulate

static inline void emulate_mma_b1(int* d, const unsigned* a, const unsigned* b) {
  emulate::mma(d, a, b, [](unsigned x, unsigned y) { return __popc(x & y); });
}
static inline void emulate_mma_u8s8(int* d, const unsigned* a, const unsigned* b) {
  emulate::mma(d, a, b, [](unsigned x, unsigned y) { return emulate_dp4a_u8s8(x, y, 0); });
}

// Asynchronous copies happen when they are waited for, no sooner.
static inline void emulate_cp_async(void* to, const void* from, int bytes) {
  emulate::now->copies.push_back({to, from, bytes, emulate::now->group});
}
static inline void emulate_cp_async_commit() { ++emulate::now->group; }
static inline void emulate_cp_async_wait(int pending) {
  auto& all = emulate::now->copies;
  size_t kept = 0;
  for (auto& c : all)
    if (c.group < emulate::now->group - pending) memcpy(c.to, c.from, c.bytes);
    else all[kept++] = c;
  all.resize(kept);
}

// TVM writes it where C++ has none: "__shared__ alignas(64) int a[1]"
#define alignas(n) __attribute__((aligned(n)))
