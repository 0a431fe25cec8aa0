/* CRC32, CRC32C and CRC64NVME: tables for what is short, carry-less multiplication for the rest.
 *
 * All three are reflected. A 16-byte register holds a polynomial of degree < 128 with bit i as x^(127 - i); the carry-less
 * product of two reflected 64-bit halves then is a * b * x, so to move a register D bits on (times x^D modulo P) its low
 * half is multiplied by x^(D + 63) and its high half by x^(D - 1), both modulo P. The constants are computed at start.
 * (Gopal et al., Fast CRC Computation for Generic Polynomials Using PCLMULQDQ, Intel 2009.) */
#include "kernels.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif
#include <string.h>

#define SHORT_BYTES 128

struct crc {
    uint64_t polynomial; /* reflected */
    uint64_t mask;
    unsigned bits;
    uint64_t table[8][256];
    uint64_t shifts[64];   /* x^(8 * 2^i) modulo P */
    uint64_t fold_512[2];  /* 4 registers of 16 bytes on */
    uint64_t fold_128[2];  /* 1 register on */
    uint64_t fold_4096[2]; /* 8 registers of 64 bytes on */
};

static struct crc crcs[CRC_KINDS] = {
    [CRC_32] = {.polynomial = 0xEDB88320u, .mask = 0xFFFFFFFFu, .bits = 32},
    [CRC_32C] = {.polynomial = 0x82F63B78u, .mask = 0xFFFFFFFFu, .bits = 32},
    [CRC_64NVME] = {.polynomial = 0x9A6C9329AC4BC9B5u, .mask = 0xFFFFFFFFFFFFFFFFu, .bits = 64},
};
static enum kernel_level active;

/* a * b modulo P; both reflected, bit (bits - 1) is x^0. */
static uint64_t multiply(const struct crc *crc, uint64_t a, uint64_t b) {
    uint64_t product = 0;
    for (unsigned bit = crc->bits; bit-- > 0;) {
        if (a >> bit & 1)
            product ^= b;
        b = b >> 1 ^ (b & 1 ? crc->polynomial : 0);
    }
    return product;
}

/* value * x^(8 * bytes) modulo P, reflected: what `bytes` more bytes do to a state. */
static uint64_t shifted(const struct crc *crc, uint64_t value, uint64_t bytes) {
    for (unsigned i = 0; bytes; i++, bytes >>= 1)
        if (bytes & 1)
            value = multiply(crc, crc->shifts[i], value);
    return value;
}

/* x^exponent modulo P, reflected. */
static uint64_t power(const struct crc *crc, unsigned exponent) {
    return shifted(crc, (uint64_t)1 << (crc->bits - 1 - exponent % 8), exponent / 8);
}

static void fold_constants(const struct crc *crc, unsigned distance_bits, uint64_t out[2]) {
    out[0] = power(crc, distance_bits + 63) << (64 - crc->bits);
    out[1] = power(crc, distance_bits - 1) << (64 - crc->bits);
}

void crc_start(enum kernel_level level) {
    active = level;
    for (int kind = 0; kind < CRC_KINDS; kind++) {
        struct crc *crc = &crcs[kind];
        for (unsigned byte = 0; byte < 256; byte++) {
            uint64_t value = byte;
            for (int bit = 0; bit < 8; bit++)
                value = value >> 1 ^ (value & 1 ? crc->polynomial : 0);
            crc->table[0][byte] = value;
        }
        for (int slice = 1; slice < 8; slice++)
            for (unsigned byte = 0; byte < 256; byte++) {
                uint64_t value = crc->table[slice - 1][byte];
                crc->table[slice][byte] = crc->table[0][value & 0xFF] ^ value >> 8;
            }
        crc->shifts[0] = (uint64_t)1 << (crc->bits - 1 - 8);
        for (int i = 1; i < 64; i++)
            crc->shifts[i] = multiply(crc, crc->shifts[i - 1], crc->shifts[i - 1]);
        fold_constants(crc, 128, crc->fold_128);
        fold_constants(crc, 512, crc->fold_512);
        fold_constants(crc, 4096, crc->fold_4096);
    }
}

/* Slicing by 8. `state` is not inverted. */
static uint64_t by_table(const struct crc *crc, uint64_t state, const uint8_t *data, size_t length) {
    for (; length >= 8; data += 8, length -= 8) {
        uint64_t word;
        memcpy(&word, data, 8);
#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
        word = __builtin_bswap64(word);
#endif
        word ^= state;
        state = crc->table[7][word & 0xFF] ^ crc->table[6][word >> 8 & 0xFF] ^ crc->table[5][word >> 16 & 0xFF] ^
                crc->table[4][word >> 24 & 0xFF] ^ crc->table[3][word >> 32 & 0xFF] ^
                crc->table[2][word >> 40 & 0xFF] ^ crc->table[1][word >> 48 & 0xFF] ^ crc->table[0][word >> 56];
    }
    while (length--)
        state = crc->table[0][(state ^ *data++) & 0xFF] ^ state >> 8;
    return state;
}

#if defined(__x86_64__)
#define PCLMUL __attribute__((target("pclmul,sse4.1")))
#define WIDE __attribute__((target("avx512f,avx512bw,avx512vl,vpclmulqdq,pclmul,sse4.1")))

PCLMUL static inline __m128i fold(__m128i value, __m128i constants, __m128i next) {
    __m128i low = _mm_clmulepi64_si128(value, constants, 0x00), high = _mm_clmulepi64_si128(value, constants, 0x11);
    return _mm_xor_si128(_mm_xor_si128(low, high), next);
}

PCLMUL static inline __m128i load(const uint8_t *data) { return _mm_loadu_si128((const __m128i *)data); }

/* The register and the bytes that are left (any number). */
PCLMUL static uint64_t finish(const struct crc *crc, __m128i value, const uint8_t *data, size_t length) {
    const __m128i constants = _mm_loadu_si128((const __m128i *)crc->fold_128);
    uint8_t rest[16];
    for (; length >= 16; data += 16, length -= 16)
        value = fold(value, constants, load(data));
    _mm_storeu_si128((__m128i *)rest, value);
    return by_table(crc, by_table(crc, 0, rest, 16), data, length);
}

/* 64 bytes that stand for all that was folded into them. */
PCLMUL static uint64_t by_lanes(const struct crc *crc, const uint8_t state[64]) {
    const __m128i one = _mm_loadu_si128((const __m128i *)crc->fold_128);
    __m128i value = fold(load(state), one, load(state + 16));
    value = fold(value, one, load(state + 32));
    return finish(crc, fold(value, one, load(state + 48)), state, 0);
}

/* length >= 64 */
PCLMUL static uint64_t by_pclmul(const struct crc *crc, uint64_t state, const uint8_t *data, size_t length) {
    const __m128i constants = _mm_loadu_si128((const __m128i *)crc->fold_512);
    const __m128i one = _mm_loadu_si128((const __m128i *)crc->fold_128);
    __m128i a = _mm_xor_si128(load(data), _mm_cvtsi64_si128((long long)state));
    __m128i b = load(data + 16), c = load(data + 32), d = load(data + 48);
    for (data += 64, length -= 64; length >= 64; data += 64, length -= 64) {
        a = fold(a, constants, load(data));
        b = fold(b, constants, load(data + 16));
        c = fold(c, constants, load(data + 32));
        d = fold(d, constants, load(data + 48));
    }
    return finish(crc, fold(fold(fold(a, one, b), one, c), one, d), data, length);
}

WIDE static inline __m512i fold_wide(__m512i value, __m512i constants, const uint8_t *next) {
    __m512i low = _mm512_clmulepi64_epi128(value, constants, 0x00);
    __m512i high = _mm512_clmulepi64_epi128(value, constants, 0x11);
    return _mm512_ternarylogic_epi64(low, high, _mm512_loadu_si512(next), 0x96);
}

/* length >= 512: eight registers of 64 bytes hide the latency of the multiplication. */
WIDE static uint64_t by_vpclmul(const struct crc *crc, uint64_t state, const uint8_t *data, size_t length) {
    const __m512i constants = _mm512_broadcast_i32x4(_mm_loadu_si128((const __m128i *)crc->fold_4096));
    const __m512i near_constants = _mm512_broadcast_i32x4(_mm_loadu_si128((const __m128i *)crc->fold_512));
    uint8_t lanes[64];
    __m512i a[8];
#pragma GCC unroll 8
    for (int i = 0; i < 8; i++)
        a[i] = _mm512_loadu_si512(data + 64 * i);
    a[0] = _mm512_xor_si512(a[0], _mm512_zextsi128_si512(_mm_cvtsi64_si128((long long)state)));
    for (data += 512, length -= 512; length >= 512; data += 512, length -= 512) {
#pragma GCC unroll 8
        for (int i = 0; i < 8; i++)
            a[i] = fold_wide(a[i], constants, data + 64 * i);
    }
#pragma GCC unroll 8
    for (int i = 1; i < 8; i++) {
        _mm512_storeu_si512(lanes, a[i]);
        a[0] = fold_wide(a[0], near_constants, lanes);
    }
    for (; length >= 64; data += 64, length -= 64)
        a[0] = fold_wide(a[0], near_constants, data);
    _mm512_storeu_si512(lanes, a[0]);
    const __m128i one = _mm_loadu_si128((const __m128i *)crc->fold_128);
    __m128i value = fold(load(lanes), one, load(lanes + 16));
    value = fold(value, one, load(lanes + 32));
    return finish(crc, fold(value, one, load(lanes + 48)), data, length);
}
#endif

const uint64_t *crc_fold_512(enum crc_kind kind) { return crcs[kind].fold_512; }

uint64_t crc_of_state(enum crc_kind kind, const uint8_t state[64]) {
    const struct crc *crc = &crcs[kind];
#if defined(__x86_64__)
    if (active >= KERNEL_SSSE3)
        return by_lanes(crc, state) ^ crc->mask;
#endif
    return by_table(crc, 0, state, 64) ^ crc->mask;
}

uint64_t crc_update(enum crc_kind kind, uint64_t value, const uint8_t *data, size_t length) {
    const struct crc *crc = &crcs[kind];
    uint64_t state = (value ^ crc->mask) & crc->mask;
#if defined(__x86_64__)
    if (length >= 512 && active >= KERNEL_GFNI512)
        state = by_vpclmul(crc, state, data, length);
    else if (length >= SHORT_BYTES && active >= KERNEL_SSSE3)
        state = by_pclmul(crc, state, data, length);
    else
#endif
        state = by_table(crc, state, data, length);
    return state ^ crc->mask;
}

uint64_t crc_of_zeros(enum crc_kind kind, uint64_t length) {
    const struct crc *crc = &crcs[kind];
    return shifted(crc, crc->mask, length) ^ crc->mask;
}

uint64_t crc_combine(enum crc_kind kind, uint64_t crc_a, uint64_t crc_b, uint64_t length_b) {
    return shifted(&crcs[kind], crc_a, length_b) ^ crc_b;
}
