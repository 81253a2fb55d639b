/* The inner loops of the ARM kernels, written by hand: 2 pixels × 8 vectors of counts, 4 × 4 of products.
   benchmarks/arm_static.py compiles one of them at a time and reads the loop. */
#include <arm_neon.h>
#include <stdint.h>
#include <string.h>

static inline uint8x16_t four(const uint8_t *a) {
  uint32_t word;
  memcpy(&word, a, 4);
  return vreinterpretq_u8_u32(vdupq_n_u32(word));
}

#ifdef KERNEL_popcount
#define P 2
#define V 8
void count(const uint8_t *a, long pitch, const uint8_t *w, long steps, uint32_t *out) {
#ifdef __ARM_FEATURE_DOTPROD
  uint32x4_t acc[P][V];
#else
  uint16x8_t acc[P][V];
#endif
  memset(acc, 0, sizeof acc);
  for (long s = 0; s < steps; ++s, a += 4, w += 16 * V)
#pragma GCC unroll 8
    for (int v = 0; v < V; ++v)
#pragma GCC unroll 2
      for (int p = 0; p < P; ++p) {
        uint8x16_t n = vcntq_u8(vandq_u8(four(a + p * pitch), vld1q_u8(w + 16 * v)));
#ifdef __ARM_FEATURE_DOTPROD
        acc[p][v] = vdotq_u32(acc[p][v], n, vdupq_n_u8(1));
#else
        acc[p][v] = vpadalq_u8(acc[p][v], n);
#endif
      }
  memcpy(out, acc, sizeof acc);
}
#endif

#ifdef KERNEL_dot
#define P 4
#define V 4
void dot(const int8_t *a, long pitch, const int8_t *w, long steps, int32_t *out) {
  int32x4_t acc[P][V];
  memset(acc, 0, sizeof acc);
#ifdef __ARM_FEATURE_DOTPROD
  for (long s = 0; s < steps; ++s, a += 8, w += 32 * V) {
    int8x8_t x[P];
#pragma GCC unroll 4
    for (int p = 0; p < P; ++p) x[p] = vld1_s8(a + p * pitch);
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v)
#pragma GCC unroll 4
      for (int p = 0; p < P; ++p) {
        acc[p][v] = vdotq_lane_s32(acc[p][v], vld1q_s8(w + 16 * v), x[p], 0);
        acc[p][v] = vdotq_lane_s32(acc[p][v], vld1q_s8(w + 16 * (V + v)), x[p], 1);
      }
  }
#else
  for (long s = 0; s < steps; ++s, a += 4, w += 16 * V)
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v)
#pragma GCC unroll 4
      for (int p = 0; p < P; ++p) {
        int16x4_t pairs = vreinterpret_s16_u8(vget_low_u8(four((const uint8_t *)a + p * pitch)));
        int16x8_t sum = vmull_s8(vld1_s8(w + 16 * v), vreinterpret_s8_s16(vdup_lane_s16(pairs, 0)));
        sum = vmlal_s8(sum, vld1_s8(w + 16 * v + 8), vreinterpret_s8_s16(vdup_lane_s16(pairs, 1)));
        acc[p][v] = vpadalq_s16(acc[p][v], sum);
      }
#endif
  memcpy(out, acc, sizeof acc);
}
#endif
