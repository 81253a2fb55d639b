/* Inner loops of three kernel families on AVX2 without VNNI, over one row of a 3x3 convolution that fits the caches.
 *
 *   popcount  bit planes; 64-bit lanes are output channels; PSHUFB counts nibbles, 8-bit sums, PSADBW once a block
 *   dot       bytes; PMADDUBSW summed in 16 bits as long as no sum can overflow, else PMADDWD of 16-bit operands
 *   lookup    PSHUFB: nibbles of weight bits (4 input channels) index 16-byte tables of sums of four activations
 *
 * Row: PIXELS outputs, 3 x (PIXELS + 2) inputs of C channels, O output channels. Building the tables is part of
 * `lookup`, once for the row, as widening operands is of `dot`. Results: int32 [PIXELS][O].
 *
 * layouts   planes  u64 [3][PIXELS+2][A][C/64]      in words, the order of channels is free
 *           codes   u8  [3][PIXELS+2][C]
 *           weights popcount u64 [O/4][9][C/64][W][2][4]   words split into low and high nibbles
 *                   dot      s8 [O/8][9][C/4][8][4], s16 [O/8][9][C/2][8][2]
 *                   lookup   u8 [O/32][9][C/4][W][32]      byte 2l: channel l, byte 2l + 1: channel 16 + l
 */
#include <immintrin.h>
#include <stdint.h>

#define PIXELS 8
#define WIDE (PIXELS + 2)
#define INLINE static inline __attribute__((always_inline))
#define UNROLL _Pragma("GCC unroll 16")

typedef __m256i V;

INLINE V load(const void *p) { return _mm256_loadu_si256((const V *)p); }

/* The same, and kept in its register: gcc would load it again for every use. It emits nothing. */
INLINE V keep(const void *p) {
    V x = load(p);
    __asm__("" : "+x"(x));
    return x;
}

/* acc += x in its register: written in C, gcc moves sums about, and some of them to memory */
#define ADD(how, acc, x) __asm__("vpadd" how " %1, %0, %0" : "+x"(acc) : "x"(x))

#define BOTH(...) _mm256_broadcastsi128_si256(_mm_setr_epi8(__VA_ARGS__))

/* Keeps an array in memory, so that the registers are free for the sums of the inner loop. */
#define IN_MEMORY(array) __asm__ volatile("" : : "r"(array) : "memory")

/* -- popcount -- */

#define BLOCK 31 /* words whose bits a byte can count: 8 each */

/* 4 pixels x 8 channels, one pair of planes at a time */
INLINE void popcount_tile(const uint64_t *planes, const uint64_t *weights, int32_t *out, int c, int o, int w, int a) {
    const V table = BOTH(0, 1, 1, 2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4);
    const int words = c / 64, rows = words <= BLOCK / 9 ? 9 : words <= BLOCK / 3 ? 3 : 1;
    V total[4][2];
    UNROLL for (int p = 0; p < 4; p++) total[p][0] = total[p][1] = _mm256_setzero_si256();
    for (int i = 0; i < w; i++)
        for (int j = 0; j < a; j++) {
            const __m128i shift = _mm_cvtsi32_si128(i + j);
            for (int t0 = 0; t0 < 9; t0 += rows) {
                V acc[4][2];
                IN_MEMORY(total);
                UNROLL for (int p = 0; p < 4; p++) acc[p][0] = acc[p][1] = _mm256_setzero_si256();
                for (int t = t0; t < t0 + rows; t++) {
                    const uint64_t *w0 = weights + (t * words * w + i) * 8, *w1 = w0 + 9 * words * w * 8;
                    const uint64_t *x = planes + ((t / 3 * WIDE + t % 3) * a + j) * words;
                    for (int k = 0; k < words; k++, w0 += 8 * w, w1 += 8 * w, x++) {
                        const V l0 = keep(w0), h0 = keep(w0 + 4), l1 = keep(w1), h1 = keep(w1 + 4);
                        UNROLL for (int p = 0; p < 4; p++) {
                            const V low = _mm256_set1_epi64x(x[p * a * words]), high = _mm256_srli_epi64(low, 4);
                            ADD("b", acc[p][0], _mm256_shuffle_epi8(table, _mm256_and_si256(low, l0)));
                            ADD("b", acc[p][1], _mm256_shuffle_epi8(table, _mm256_and_si256(low, l1)));
                            ADD("b", acc[p][0], _mm256_shuffle_epi8(table, _mm256_and_si256(high, h0)));
                            ADD("b", acc[p][1], _mm256_shuffle_epi8(table, _mm256_and_si256(high, h1)));
                        }
                    }
                }
                IN_MEMORY(total);
                UNROLL for (int p = 0; p < 4; p++) UNROLL for (int v = 0; v < 2; v++)
                    total[p][v] = _mm256_add_epi64(total[p][v], _mm256_sll_epi64(
                        _mm256_sad_epu8(acc[p][v], _mm256_setzero_si256()), shift));
            }
        }
    UNROLL for (int p = 0; p < 4; p++) UNROLL for (int v = 0; v < 2; v++) {
        int64_t sums[4];
        _mm256_storeu_si256((V *)sums, total[p][v]);
        UNROLL for (int l = 0; l < 4; l++) out[p * o + 4 * v + l] = (int32_t)sums[l];
    }
}

void popcount_row(const uint64_t *planes, const uint64_t *weights, int32_t *out, int c, int o, int w, int a) {
    for (int x = 0; x < PIXELS; x += 4)
        for (int n = 0; n < o; n += 8)
            popcount_tile(planes + x * a * (c / 64), weights + n / 4 * 9 * (c / 64) * w * 8, out + x * o + n, c, o, w,
                          a);
}

/* -- dot -- */

/* 4 pixels x 16 channels; `most`: steps of PMADDUBSW that cannot overflow 16 bits */
void maddubs_row(const uint8_t *codes, const int8_t *weights, int32_t *out, int c, int o, int most) {
    const V ones = _mm256_set1_epi16(1);
    const int steps = c / 4;
    for (int x = 0; x < PIXELS; x += 4)
        for (int n = 0; n < o; n += 16) {
            V wide[4][2];
            UNROLL for (int p = 0; p < 4; p++) wide[p][0] = wide[p][1] = _mm256_setzero_si256();
            for (int t = 0; t < 9; t++) {
                const int8_t *w0 = weights + (long)n * 9 * c + t * steps * 32, *w1 = w0 + 8 * 9 * c;
                const uint8_t *from = codes + ((t / 3 * WIDE) + t % 3 + x) * c;
                for (int k = 0; k < steps;) {
                    const int end = k + most < steps ? k + most : steps;
                    V acc[4][2];
                    IN_MEMORY(wide);
                    UNROLL for (int p = 0; p < 4; p++) acc[p][0] = acc[p][1] = _mm256_setzero_si256();
                    for (; k < end; k++, from += 4, w0 += 32, w1 += 32) {
                        const V b0 = keep(w0), b1 = keep(w1);
                        UNROLL for (int p = 0; p < 4; p++) {
                            const V y = _mm256_set1_epi32(*(const int32_t *)(from + p * c));
                            ADD("w", acc[p][0], _mm256_maddubs_epi16(y, b0));
                            ADD("w", acc[p][1], _mm256_maddubs_epi16(y, b1));
                        }
                    }
                    IN_MEMORY(wide);
                    UNROLL for (int p = 0; p < 4; p++) UNROLL for (int v = 0; v < 2; v++)
                        wide[p][v] = _mm256_add_epi32(wide[p][v], _mm256_madd_epi16(acc[p][v], ones));
                }
            }
            UNROLL for (int p = 0; p < 4; p++) UNROLL for (int v = 0; v < 2; v++)
                _mm256_storeu_si256((V *)(out + (x + p) * o + n + 8 * v),
                                    wide[p][v]);
        }
}

static int16_t widened[3 * WIDE * 512];

void madd_row(const uint8_t *codes, const int16_t *weights, int32_t *out, int c, int o) {
    for (int i = 0; i < 3 * WIDE * c; i++) widened[i] = codes[i];
    const int steps = c / 2;
    for (int x = 0; x < PIXELS; x += 4)
        for (int n = 0; n < o; n += 16) {
            V acc[4][2];
            UNROLL for (int p = 0; p < 4; p++) acc[p][0] = acc[p][1] = _mm256_setzero_si256();
            for (int t = 0; t < 9; t++) {
                const int16_t *w0 = weights + (long)n * 9 * c + t * steps * 16, *w1 = w0 + 8 * 9 * c;
                const int16_t *from = widened + ((t / 3 * WIDE) + t % 3 + x) * c;
                for (int k = 0; k < steps; k++, from += 2, w0 += 16, w1 += 16) {
                    const V b0 = keep(w0), b1 = keep(w1);
                    UNROLL for (int p = 0; p < 4; p++) {
                        const V y = _mm256_set1_epi32(*(const int32_t *)(from + p * c));
                        ADD("d", acc[p][0], _mm256_madd_epi16(y, b0));
                        ADD("d", acc[p][1], _mm256_madd_epi16(y, b1));
                    }
                }
            }
            UNROLL for (int p = 0; p < 4; p++) UNROLL for (int v = 0; v < 2; v++)
                _mm256_storeu_si256((V *)(out + (x + p) * o + n + 8 * v), acc[p][v]);
        }
}

/* -- lookup -- */

static uint8_t tables[3 * WIDE * 128 * 2][16];

/* [3][WIDE][C/4][digits][16]: sums of four activations' low `bits` bits, then of the next ones, for each subset */
INLINE void build_tables(const uint8_t *codes, int c, int digits, int bits) {
    /* for entries 0..7, then 8..15: which of two neighbouring channels count. PMADDUBSW makes 16-bit words of both lanes */
    const V pair = BOTH(0, 0, 1, 0, 0, 1, 1, 1, 0, 0, 1, 0, 0, 1, 1, 1);
    const V first23 = BOTH(0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 1, 0, 1, 0, 1, 0);
    const V then23 = BOTH(0, 1, 0, 1, 0, 1, 0, 1, 1, 1, 1, 1, 1, 1, 1, 1);
    const V mask = _mm256_set1_epi8((char)((1 << bits) - 1));
    /* channels 0, 1 and 2, 3 of this group to the low lane; of the next group to the high lane */
    const V next = _mm256_setr_epi32(0, 0, 0, 0, 0x04040404, 0x04040404, 0x04040404, 0x04040404);
    const V spread01 = _mm256_add_epi8(_mm256_set1_epi16(0x0100), next);
    const V spread23 = _mm256_add_epi8(_mm256_set1_epi16(0x0302), next);
    uint8_t(*t)[16] = tables;
    for (int i = 0; i < 3 * WIDE * c; i += 8) {
        V x = _mm256_set1_epi64x(*(const int64_t *)(codes + i));
        for (int d = 0; d < digits; d++) {
            const V y = _mm256_and_si256(x, mask);
            const V lo = _mm256_maddubs_epi16(_mm256_shuffle_epi8(y, spread01), pair);
            const V y23 = _mm256_shuffle_epi8(y, spread23);
            const V first = _mm256_add_epi16(lo, _mm256_maddubs_epi16(y23, first23));
            const V second = _mm256_add_epi16(lo, _mm256_maddubs_epi16(y23, then23));
            const V both = _mm256_packus_epi16(first, second);
            _mm_storeu_si128((__m128i *)t[d], _mm256_castsi256_si128(both));
            _mm_storeu_si128((__m128i *)t[digits + d], _mm256_extracti128_si256(both, 1));
            x = _mm256_srli_epi64(x, bits);
        }
        t += 2 * digits;
    }
}

/* 4 pixels x 64 channels, a weight plane and a digit of the activations at a time: 8-bit sums, widened each `most` */
INLINE void lookup_tile(const uint8_t (*t0)[16], const uint8_t *weights, int32_t *out, int c, int o, const int w,
                        const int digits, int bits, int most) {
    const V bytes = _mm256_set1_epi16(255);
    const int steps = c / 4, rows = 9 * steps <= most ? 9 : 3 * steps <= most ? 3 : 1;
    for (int i = 0; i < w; i++)
        for (int d = 0; d < digits; d++) {
            V even[4][2], odd[4][2];
            UNROLL for (int p = 0; p < 4; p++) UNROLL for (int v = 0; v < 2; v++)
                even[p][v] = odd[p][v] = _mm256_setzero_si256();
            for (int r = 0; r < 9; r += rows)
                for (int k0 = 0; k0 < steps; k0 += most) {
                    const int end = k0 + most < steps ? k0 + most : steps;
                    V acc[4][2];
                    IN_MEMORY(even);
                    IN_MEMORY(odd);
                    UNROLL for (int p = 0; p < 4; p++) acc[p][0] = acc[p][1] = _mm256_setzero_si256();
                    for (int t = r; t < r + rows; t++) {
                        const uint8_t(*row)[16] = t0 + ((t / 3 * WIDE + t % 3) * steps + k0) * digits + d;
                        const uint8_t *q0 = weights + ((t * steps + k0) * w + i) * 32, *q1 = q0 + 9 * steps * w * 32;
                        for (int k = k0; k < end; k++, q0 += 32 * w, q1 += 32 * w, row += digits) {
                            const V i0 = keep(q0), i1 = keep(q1);
                            UNROLL for (int p = 0; p < 4; p++) {
                                const V of = _mm256_broadcastsi128_si256(
                                    _mm_loadu_si128((const __m128i *)row[p * steps * digits]));
                                ADD("b", acc[p][0], _mm256_shuffle_epi8(of, i0));
                                ADD("b", acc[p][1], _mm256_shuffle_epi8(of, i1));
                            }
                        }
                    }
                    IN_MEMORY(even);
                    IN_MEMORY(odd);
                    UNROLL for (int p = 0; p < 4; p++) UNROLL for (int v = 0; v < 2; v++) {
                        even[p][v] = _mm256_add_epi16(even[p][v], _mm256_and_si256(acc[p][v], bytes));
                        odd[p][v] = _mm256_add_epi16(odd[p][v], _mm256_srli_epi16(acc[p][v], 8));
                    }
                }
            UNROLL for (int p = 0; p < 4; p++) UNROLL for (int v = 0; v < 2; v++) {
                uint16_t s[2][16];
                _mm256_storeu_si256((V *)s[0], even[p][v]);
                _mm256_storeu_si256((V *)s[1], odd[p][v]);
                for (int l = 0; l < 16; l++) {
                    int32_t *at = out + p * o + 32 * v + l;
                    const int32_t e = s[0][l] << (i + d * bits), f = s[1][l] << (i + d * bits);
                    at[0] = (i || d) ? at[0] + e : e;
                    at[16] = (i || d) ? at[16] + f : f;
                }
            }
        }
}

void lookup_row(const uint8_t *codes, const uint8_t *weights, int32_t *out, int c, int o, int w, int a) {
    const int digits = a > 4 ? 2 : 1, bits = a > 4 ? (a + 1) / 2 : a, most = 255 / (4 * ((1 << bits) - 1));
    const int steps = c / 4;
    build_tables(codes, c, digits, bits);
    for (int x = 0; x < PIXELS; x += 4)
        for (int n = 0; n < o; n += 64)
            lookup_tile((const uint8_t(*)[16])tables + x * steps * digits, weights + n / 32 * 9 * steps * w * 32,
                        out + x * o + n, c, o, w, digits, bits, most);
}

/* kind 0 popcount, 1 PMADDUBSW, 2 PMADDWD, 3 lookup; `most` as in maddubs_row */
void run(int rounds, int kind, const void *data, const void *weights, int32_t *out, int c, int o, int w, int a,
         int most) {
    for (int r = 0; r < rounds; r++) {
        if (kind == 0) popcount_row(data, weights, out, c, o, w, a);
        else if (kind == 1) maddubs_row(data, weights, out, c, o, most);
        else if (kind == 2) madd_row(data, weights, out, c, o);
        else lookup_row(data, weights, out, c, o, w, a);
    }
}
