/* Ceilings of one core: register-only loops of 8 to 12 independent accumulators, built with -O3 for a target's CPU.
 *
 *   popcount_loop  AND, POPCNT, ADD        bit-MAC per step and accumulator: BITS
 *   dot_loop       bytes of any value      MAC per step and accumulator: MACS
 *   few_loop       bytes of few bits       MAC per step and accumulator: FEW_MACS
 *   lookup_loop    VPSHUFB, VPADDB         MAC of one weight bit per step and accumulator: BITS / 2 (AVX2 alone)
 *   clock_loop     a chain of dependent multiplications, 3 cycles each on every x86-64 core since 2008: the core's clock
 *
 * The empty asm statements keep the compiler from hoisting work out of a loop whose operands never change.
 */
#include <immintrin.h>
#include <stdint.h>

#if defined(__AVX512F__)
#define ACCUMULATORS 12
#else
#define ACCUMULATORS 8 /* of 16 registers */
#endif
/* unrolled early, so that gcc keeps the sums in registers */
#define EACH _Pragma("GCC unroll 16") for (int i = 0; i < ACCUMULATORS; i++)

#if defined(__AVX512VPOPCNTDQ__)
typedef __m512i V;
#define BITS 512
#define POPCOUNT_NAME "AVX-512 VPOPCNTDQ"
#define FRESH(x) __asm__ volatile("" : "+v"(x))
#define COUNT_ADD(acc, a, w) _mm512_add_epi64(acc, _mm512_popcnt_epi64(_mm512_and_si512(a, w)))
#define SPLAT _mm512_set1_epi64
#define SUM(x) _mm512_reduce_add_epi64(x)
#elif defined(__AVX2__)
#if defined(__AVX512BW__)
typedef __m512i V;
#define BITS 512
#define POPCOUNT_NAME "AVX-512 VPSHUFB of nibbles split before, 8-bit sums"
#define TABLE _mm512_broadcast_i32x4
#define FRESH(x) __asm__ volatile("" : "+v"(x))
#define SPLAT _mm512_set1_epi64
#define SUM(x) _mm512_reduce_add_epi64(x)
#define LOOK _mm512_shuffle_epi8
#define AND _mm512_and_si512
#define ADD8(acc, x) __asm__("vpaddb %1, %0, %0" : "+v"(acc) : "v"(x))
#else
typedef __m256i V;
#define BITS 256
#define POPCOUNT_NAME "AVX2 VPSHUFB of nibbles split before, 8-bit sums"
#define TABLE _mm256_broadcastsi128_si256
#define FRESH(x) __asm__ volatile("" : "+x"(x))
#define SPLAT _mm256_set1_epi64x
#define SUM(x) _mm256_extract_epi64(x, 0)
#define LOOK _mm256_shuffle_epi8
#define AND _mm256_and_si256
#define ADD8(acc, x) __asm__("vpaddb %1, %0, %0" : "+x"(acc) : "x"(x))
#endif
/* a and w stand for their low nibbles and for their high ones: splitting w is shared by pixels, splitting a by channels */
static inline V count_add(V acc, V a, V w) {
    const V table = TABLE(_mm_setr_epi8(0, 1, 1, 2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4));
    V high = a;
    FRESH(high);
    ADD8(acc, LOOK(table, AND(a, w)));
    ADD8(acc, LOOK(table, AND(high, w)));
    return acc;
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

/* FEW: where two products and more fit 16 bits, because levels or weights have few bits */
#if defined(__AVX512VNNI__)
typedef __m512i D;
#define MACS 64
#define FEW_MACS 64
#define DOT_NAME "AVX-512 VPDPBUSD"
#define FEW_NAME DOT_NAME
#define FRESH_D(x) __asm__ volatile("" : "+v"(x))
#define DOT _mm512_dpbusd_epi32
#define FEW DOT
#define SPLAT_D _mm512_set1_epi8
#define SUM_D(x) _mm512_reduce_add_epi32(x)
#else
#if defined(__AVX512BW__)
typedef __m512i D;
#define WIDTH 512
#define VECTORS "AVX-512 V"
#define SPLAT_D _mm512_set1_epi8
#define SUM_D(x) _mm512_reduce_add_epi32(x)
#define MADD _mm512_madd_epi16
#define MADDUBS _mm512_maddubs_epi16
#define OPERANDS "%1, %0, %0"
#define REGISTER "v"
#elif defined(__AVX2__)
typedef __m256i D;
#define WIDTH 256
#define VECTORS "AVX2 V"
#define SPLAT_D _mm256_set1_epi8
#define SUM_D(x) _mm256_extract_epi32(x, 0)
#define MADD _mm256_madd_epi16
#define MADDUBS _mm256_maddubs_epi16
#define OPERANDS "%1, %0, %0"
#define REGISTER "x"
#else
typedef __m128i D;
#define WIDTH 128
#define VECTORS "SSSE3 "
#define SPLAT_D _mm_set1_epi8
#define SUM_D(x) _mm_cvtsi128_si32(x)
#define MADD _mm_madd_epi16
#define MADDUBS _mm_maddubs_epi16
#define OPERANDS "%1, %0"
#define REGISTER "x"
#endif
#define MACS (WIDTH / 16)
#define FEW_MACS (WIDTH / 8)
#define DOT_NAME VECTORS "PMADDWD, 32-bit sums"
#define FEW_NAME VECTORS "PMADDUBSW, 16-bit sums"
#define FRESH_D(x) __asm__ volatile("" : "+" REGISTER(x))
#if WIDTH > 128
#define SUM_UP(how, acc, x) __asm__("vpadd" how " " OPERANDS : "+" REGISTER(acc) : REGISTER(x))
#else
#define SUM_UP(how, acc, x) __asm__("padd" how " " OPERANDS : "+" REGISTER(acc) : REGISTER(x))
#endif
static inline D DOT(D acc, D a, D w) {
    SUM_UP("d", acc, MADD(a, w));
    return acc;
}
static inline D FEW(D acc, D a, D w) {
    SUM_UP("w", acc, MADDUBS(a, w));
    return acc;
}
#endif

const char *popcount_name(void) { return POPCOUNT_NAME; }
const char *dot_name(void) { return DOT_NAME; }
const char *few_name(void) { return FEW_NAME; }
int64_t popcount_work(void) { return (int64_t)BITS * ACCUMULATORS; }
int64_t dot_work(void) { return (int64_t)MACS * ACCUMULATORS; }
int64_t few_work(void) { return (int64_t)FEW_MACS * ACCUMULATORS; }

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

#define PRODUCTS(name, STEP)                                                       \
    int64_t name(int64_t steps) {                                                 \
        D acc[ACCUMULATORS], a = SPLAT_D(3), w[4];                                \
        for (int i = 0; i < 4; i++) { w[i] = SPLAT_D((char)(i - 1)); FRESH_D(w[i]); } \
        EACH acc[i] = SPLAT_D(0);                                                 \
        for (int64_t s = 0; s < steps; s++) {                                     \
            EACH { FRESH_D(a); acc[i] = STEP(acc[i], a, w[i % 4]); }              \
        }                                                                         \
        int64_t sum = 0;                                                          \
        EACH sum += SUM_D(acc[i]);                                                \
        return sum;                                                               \
    }
PRODUCTS(dot_loop, DOT)
PRODUCTS(few_loop, FEW)

#if defined(__AVX2__) && !defined(__AVX512F__)
/* a table of sums of four activations, indexed by four weights of each byte's output channel */
const char *lookup_name(void) { return "AVX2 VPSHUFB, 8-bit sums"; }
int64_t lookup_work(void) { return (int64_t)BITS / 2 * ACCUMULATORS; }

int64_t lookup_loop(int64_t steps) {
    V acc[ACCUMULATORS], table = SPLAT(0x0302020102010100), w[4];
    for (int i = 0; i < 4; i++) { w[i] = SPLAT(0x0706050403020100 + i); FRESH(w[i]); }
    EACH acc[i] = SPLAT(0);
    for (int64_t s = 0; s < steps; s++) {
        EACH { FRESH(table); ADD8(acc[i], LOOK(table, w[i % 4])); }
    }
    int64_t sum = 0;
    EACH sum += SUM(acc[i]);
    return sum;
}
#endif

#define MULTIPLY4 "imulq %0, %0\n\timulq %0, %0\n\timulq %0, %0\n\timulq %0, %0\n\t"
#define CLOCK_CYCLES (3 * 16)
int64_t clock_work(void) { return CLOCK_CYCLES; }

int64_t clock_loop(int64_t steps) {
    int64_t x = steps | 1;
    for (int64_t s = 0; s < steps; s++)
        __asm__ volatile(MULTIPLY4 MULTIPLY4 MULTIPLY4 MULTIPLY4 : "+r"(x) : : "cc");
    return x;
}
