/* Ceilings of one core: register-only loops with 12 independent accumulators, built with -O3 -march=native.
 *
 *   popcount_loop  AND, POPCNT, ADD        bit-MAC per step and accumulator: BITS
 *   dot_loop       u8 x s8 into s32        MAC per step and accumulator: MACS
 *   clock_loop     a chain of dependent multiplications, 3 cycles each on every x86-64 core since 2008: the core's clock
 *
 * The empty asm statements keep the compiler from hoisting work out of a loop whose operands never change; they emit nothing.
 */
#include <immintrin.h>
#include <stdint.h>

#define ACCUMULATORS 12
#define EACH for (int i = 0; i < ACCUMULATORS; i++)

#if defined(__AVX512VPOPCNTDQ__)
typedef __m512i V;
#define BITS 512
#define POPCOUNT_NAME "AVX-512 VPOPCNTDQ"
#define FRESH(x) __asm__ volatile("" : "+v"(x))
#define COUNT_ADD(acc, a, w) _mm512_add_epi64(acc, _mm512_popcnt_epi64(_mm512_and_si512(a, w)))
#define SPLAT _mm512_set1_epi64
#define SUM(x) _mm512_reduce_add_epi64(x)
#elif defined(__AVX2__)
typedef __m256i V;
#define BITS 256
#define POPCOUNT_NAME "AVX2 VPSHUFB table, 8-bit sums"
#define FRESH(x) __asm__ volatile("" : "+x"(x))
#define SPLAT _mm256_set1_epi64x
#define SUM(x) _mm256_extract_epi64(x, 0)
static inline V count_add(V acc, V a, V w) {
    const V table = _mm256_setr_epi8(0, 1, 1, 2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4,
                                     0, 1, 1, 2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4);
    const V low = _mm256_set1_epi8(15), x = _mm256_and_si256(a, w);
    acc = _mm256_add_epi8(acc, _mm256_shuffle_epi8(table, _mm256_and_si256(x, low)));
    return _mm256_add_epi8(acc, _mm256_shuffle_epi8(table, _mm256_and_si256(_mm256_srli_epi16(x, 4), low)));
}
#define COUNT_ADD count_add
#else
typedef uint64_t V;
#define BITS 64
#define POPCOUNT_NAME "scalar POPCNT"
#define FRESH(x) __asm__ volatile("" : "+r"(x))
#define COUNT_ADD(acc, a, w) ((acc) + (uint64_t)__builtin_popcountll((a) & (w)))
#define SPLAT (uint64_t)
#define SUM(x) (int64_t)(x)
#endif

#if defined(__AVX512VNNI__)
typedef __m512i D;
#define MACS 64
#define DOT_NAME "AVX-512 VPDPBUSD"
#define FRESH_D(x) __asm__ volatile("" : "+v"(x))
#define DOT _mm512_dpbusd_epi32
#define SPLAT_D _mm512_set1_epi8
#define SUM_D(x) _mm512_reduce_add_epi32(x)
#elif defined(__AVXVNNI__)
typedef __m256i D;
#define MACS 32
#define DOT_NAME "AVX-VNNI VPDPBUSD"
#define FRESH_D(x) __asm__ volatile("" : "+x"(x))
#define DOT _mm256_dpbusd_avx_epi32
#define SPLAT_D _mm256_set1_epi8
#define SUM_D(x) _mm256_extract_epi32(x, 0)
#elif defined(__AVX2__)
typedef __m256i D;
#define MACS 32
#define DOT_NAME "AVX2 VPMADDUBSW, VPMADDWD, VPADDD"
#define FRESH_D(x) __asm__ volatile("" : "+x"(x))
#define DOT(acc, a, w) _mm256_add_epi32(acc, _mm256_madd_epi16(_mm256_maddubs_epi16(a, w), _mm256_set1_epi16(1)))
#define SPLAT_D _mm256_set1_epi8
#define SUM_D(x) _mm256_extract_epi32(x, 0)
#else
typedef __m128i D;
#define MACS 8
#define DOT_NAME "SSE2 PMADDWD, PADDD"
#define FRESH_D(x) __asm__ volatile("" : "+x"(x))
#define DOT(acc, a, w) _mm_add_epi32(acc, _mm_madd_epi16(a, w))
#define SPLAT_D _mm_set1_epi8
#define SUM_D(x) _mm_cvtsi128_si32(x)
#endif

const char *popcount_name(void) { return POPCOUNT_NAME; }
const char *dot_name(void) { return DOT_NAME; }
int64_t popcount_work(void) { return (int64_t)BITS * ACCUMULATORS; }
int64_t dot_work(void) { return (int64_t)MACS * ACCUMULATORS; }

int64_t popcount_loop(int64_t steps) {
    V acc[ACCUMULATORS], a = SPLAT(0x5555), w[4];
    for (int i = 0; i < 4; i++) { w[i] = SPLAT(3 * i + 1); FRESH(w[i]); }
    EACH acc[i] = SPLAT(0);
    for (int64_t s = 0; s < steps; s++) {
        EACH { FRESH(a); acc[i] = COUNT_ADD(acc[i], a, w[i % 4]); }
    }
    int64_t sum = 0;
    EACH sum += SUM(acc[i]);
    return sum;
}

int64_t dot_loop(int64_t steps) {
    D acc[ACCUMULATORS], a = SPLAT_D(3), w[4];
    for (int i = 0; i < 4; i++) { w[i] = SPLAT_D((char)(i - 1)); FRESH_D(w[i]); }
    EACH acc[i] = SPLAT_D(0);
    for (int64_t s = 0; s < steps; s++) {
        EACH { FRESH_D(a); acc[i] = DOT(acc[i], a, w[i % 4]); }
    }
    int64_t sum = 0;
    EACH sum += SUM_D(acc[i]);
    return sum;
}

#define MULTIPLY4 "imulq %0, %0\n\timulq %0, %0\n\timulq %0, %0\n\timulq %0, %0\n\t"
#define CLOCK_CYCLES (3 * 16)
int64_t clock_work(void) { return CLOCK_CYCLES; }

int64_t clock_loop(int64_t steps) {
    int64_t x = steps | 1;
    for (int64_t s = 0; s < steps; s++)
        __asm__ volatile(MULTIPLY4 MULTIPLY4 MULTIPLY4 MULTIPLY4 : "+r"(x) : : "cc");
    return x;
}
