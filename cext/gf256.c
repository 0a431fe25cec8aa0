/* Erasure coding over GF(2^8) modulo 0x11D, fused with the CRC32C of every 64 KiB page of every shard that is read or written.
 *
 * One transform serves encoding and reconstruction: outputs = matrix * inputs. With GFNI and AVX-512 a column of 64 bytes of
 * each shard is loaded once, folded into the shard's checksum in a register, and multiplied by 8x8 bit matrices; elsewhere
 * tiles of 4 KiB are multiplied with nibble tables (pshufb) or a table of products, and checksummed while they are in L1. */
#include "kernels.h"

#include <stdlib.h>
#include <string.h>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

#define POLYNOMIAL 0x11D
#define TILE_BYTES 4096
#define STREAM_BYTES (1u << 20)
/* Shards lie a multiple of 4 KiB apart, so the lines of one column share a set of the L1 cache: what is fetched further
 * ahead than this is evicted before its turn (10+4 cold on Zen 4: 19.4 GB/s, with 1024 bytes 17.4). */
#define PREFETCH_BYTES 384

static uint8_t products[256][256];
static uint64_t affine[256];
static uint8_t inverses[256];
static enum kernel_level active;

static uint8_t multiply(unsigned a, unsigned b) {
    unsigned product = 0;
    for (; b; b >>= 1, a = a << 1 ^ (a & 0x80 ? POLYNOMIAL : 0))
        if (b & 1)
            product ^= a;
    return (uint8_t)product;
}

/* The 8x8 bit matrix of y = c * x as gf2p8affineqb wants it: byte 7 - i holds the row of output bit i. */
static uint64_t bit_matrix(unsigned c) {
    uint64_t matrix = 0;
    for (unsigned out = 0; out < 8; out++) {
        unsigned row = 0;
        for (unsigned in = 0; in < 8; in++)
            row |= (unsigned)(products[c][1u << in] >> out & 1) << in;
        matrix |= (uint64_t)row << (8 * (7 - out));
    }
    return matrix;
}

void gf_start(enum kernel_level level) {
    active = level;
    for (unsigned a = 0; a < 256; a++)
        for (unsigned b = a; b < 256; b++) {
            products[a][b] = products[b][a] = multiply(a, b);
            if (products[a][b] == 1)
                inverses[a] = (uint8_t)b, inverses[b] = (uint8_t)a;
        }
    for (unsigned c = 0; c < 256; c++)
        affine[c] = bit_matrix(c);
}

void gf_encode_matrix(unsigned k, unsigned m, uint8_t *out) {
    for (unsigned i = 0; i < m; i++)
        for (unsigned j = 0; j < k; j++)
            out[i * k + j] = inverses[(k + i) ^ j];
    for (unsigned j = 0; j < k; j++) { /* columns, until row 0 is all ones */
        uint8_t scale = m ? inverses[out[j]] : 1;
        for (unsigned i = 0; i < m; i++)
            out[i * k + j] = products[out[i * k + j]][scale];
    }
    for (unsigned i = 1; i < m; i++) { /* rows, until column 0 is all ones */
        uint8_t scale = inverses[out[i * k]];
        for (unsigned j = 0; j < k; j++)
            out[i * k + j] = products[out[i * k + j]][scale];
    }
}

/* --- tiles: out += c * in, any length ------------------------------------------------------------------ */

static void add_product_portable(uint8_t *out, const uint8_t *in, uint8_t c, size_t length) {
    const uint8_t *row = products[c];
    for (size_t i = 0; i < length; i++)
        out[i] ^= row[in[i]];
}

#if defined(__x86_64__)
static void nibble_tables(uint8_t c, uint8_t low[16], uint8_t high[16]) {
    for (unsigned i = 0; i < 16; i++)
        low[i] = products[c][i], high[i] = products[c][i << 4];
}

__attribute__((target("ssse3"))) static void add_product_ssse3(uint8_t *out, const uint8_t *in, uint8_t c, size_t length) {
    uint8_t low[16], high[16];
    size_t i = 0;
    nibble_tables(c, low, high);
    const __m128i lows = _mm_loadu_si128((const __m128i *)low), highs = _mm_loadu_si128((const __m128i *)high);
    const __m128i mask = _mm_set1_epi8(0x0F);
    for (; i + 16 <= length; i += 16) {
        __m128i x = _mm_loadu_si128((const __m128i *)(in + i)), y = _mm_loadu_si128((const __m128i *)(out + i));
        __m128i l = _mm_shuffle_epi8(lows, _mm_and_si128(x, mask));
        __m128i h = _mm_shuffle_epi8(highs, _mm_and_si128(_mm_srli_epi64(x, 4), mask));
        _mm_storeu_si128((__m128i *)(out + i), _mm_xor_si128(y, _mm_xor_si128(l, h)));
    }
    add_product_portable(out + i, in + i, c, length - i);
}

__attribute__((target("avx2"))) static void add_product_avx2(uint8_t *out, const uint8_t *in, uint8_t c, size_t length) {
    uint8_t low[16], high[16];
    size_t i = 0;
    nibble_tables(c, low, high);
    const __m256i lows = _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)low));
    const __m256i highs = _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)high));
    const __m256i mask = _mm256_set1_epi8(0x0F);
    for (; i + 32 <= length; i += 32) {
        __m256i x = _mm256_loadu_si256((const __m256i *)(in + i)), y = _mm256_loadu_si256((const __m256i *)(out + i));
        __m256i l = _mm256_shuffle_epi8(lows, _mm256_and_si256(x, mask));
        __m256i h = _mm256_shuffle_epi8(highs, _mm256_and_si256(_mm256_srli_epi64(x, 4), mask));
        _mm256_storeu_si256((__m256i *)(out + i), _mm256_xor_si256(y, _mm256_xor_si256(l, h)));
    }
    add_product_portable(out + i, in + i, c, length - i);
}

__attribute__((target("avx2,gfni"))) static void add_product_gfni2(uint8_t *out, const uint8_t *in, uint8_t c, size_t length) {
    const __m256i matrix = _mm256_set1_epi64x((long long)affine[c]);
    size_t i = 0;
    for (; i + 32 <= length; i += 32) {
        __m256i x = _mm256_loadu_si256((const __m256i *)(in + i)), y = _mm256_loadu_si256((const __m256i *)(out + i));
        _mm256_storeu_si256((__m256i *)(out + i), _mm256_xor_si256(y, _mm256_gf2p8affine_epi64_epi8(x, matrix, 0)));
    }
    add_product_portable(out + i, in + i, c, length - i);
}
#endif

static void add_product(uint8_t *out, const uint8_t *in, uint8_t c, size_t length) {
#if defined(__x86_64__)
    if (active >= KERNEL_GFNI2)
        add_product_gfni2(out, in, c, length);
    else if (active == KERNEL_AVX2)
        add_product_avx2(out, in, c, length);
    else if (active == KERNEL_SSSE3)
        add_product_ssse3(out, in, c, length);
    else
#endif
        add_product_portable(out, in, c, length);
}

/* One page, in tiles; `crcs` continues from what it holds. */
static void page_by_tiles(const struct gf_shards *s, size_t start, size_t length, uint32_t *crcs) {
    for (size_t at = start; at < start + length; at += TILE_BYTES) {
        size_t size = start + length - at < TILE_BYTES ? start + length - at : TILE_BYTES;
        for (unsigned i = 0; i < s->outputs; i++) {
            memset(s->out[i] + at, 0, size);
            for (unsigned j = 0; j < s->inputs; j++)
                add_product(s->out[i] + at, s->in[j] + at, s->matrix[i * s->inputs + j], size);
        }
        for (unsigned j = 0; j < s->inputs; j++)
            crcs[j] = (uint32_t)crc_update(CRC_32C, crcs[j], s->in[j] + at, size);
        for (unsigned i = 0; i < s->outputs; i++)
            crcs[s->inputs + i] = (uint32_t)crc_update(CRC_32C, crcs[s->inputs + i], s->out[i] + at, size);
    }
}

/* --- columns in registers ---------------------------------------------------------------------------- */

#if defined(__x86_64__)
#define COLUMNS __attribute__((target("gfni,avx512f,avx512bw,avx512vl,avx512dq,vpclmulqdq,pclmul,sse4.1")))
#define INLINE COLUMNS __attribute__((always_inline)) static inline

INLINE __m512i fold(__m512i state, __m512i constants, __m512i next) {
    __m512i low = _mm512_clmulepi64_epi128(state, constants, 0x00);
    __m512i high = _mm512_clmulepi64_epi128(state, constants, 0x11);
    return _mm512_ternarylogic_epi64(low, high, next, 0x96);
}

/* Whole columns of one page, and the checksums of all its shards. k, r and the modes are constants where the caller makes
 * them so: then all states stay in registers.
 *
 * `plain`: row 0 and column 0 of the matrix are all ones, as in every encoding. The checksum of output 0, the sum of all
 * inputs, then is the sum of theirs: a checksum is linear but for the ones it begins with, which an even number of inputs
 * cancels. Carry-less multiplications are what a wide stripe waits for (two a column and shard). */
INLINE void columns(const struct gf_shards *s, const uint64_t *matrices, unsigned k, unsigned r, size_t start, size_t length,
                    int stream, int plain, uint32_t *crcs) {
    const __m512i constants = _mm512_broadcast_i32x4(_mm_loadu_si128((const __m128i *)crc_fold_512(CRC_32C)));
    const __m512i first = _mm512_zextsi128_si512(_mm_cvtsi32_si128(-1));
    __m512i crc[GF_SHARDS_MAX], sum[GF_SHARDS_MAX];
    uint8_t state[64];
#pragma GCC unroll 32
    for (unsigned i = 0; i < r; i++)
        sum[i] = _mm512_setzero_si512();
#pragma GCC unroll 32
    for (unsigned i = 0; i < k + r; i++)
        crc[i] = _mm512_setzero_si512();
    for (size_t at = start; at < start + length; at += 64) {
        const __m512i begin = at == start ? first : _mm512_setzero_si512();
#pragma GCC unroll 32
        for (unsigned j = 0; j < k; j++) {
            const uint8_t *data = s->in[j] + at;
            __m512i x = _mm512_loadu_si512(data);
            _mm_prefetch((const char *)data + PREFETCH_BYTES, _MM_HINT_T0);
            crc[j] = fold(crc[j], constants, _mm512_xor_si512(x, begin));
#pragma GCC unroll 32
            for (unsigned i = 0; i < r; i++) {
                __m512i product = x;
                if (!plain || (i && j))
                    product = _mm512_gf2p8affine_epi64_epi8(x, _mm512_set1_epi64((long long)matrices[i * k + j]), 0);
                sum[i] = j ? _mm512_xor_si512(sum[i], product) : product;
            }
        }
#pragma GCC unroll 32
        for (unsigned i = 0; i < r; i++) {
            if (stream)
                _mm512_stream_si512((void *)(s->out[i] + at), sum[i]);
            else
                _mm512_storeu_si512(s->out[i] + at, sum[i]);
            if (i || !plain)
                crc[k + i] = fold(crc[k + i], constants, _mm512_xor_si512(sum[i], begin));
        }
    }
#pragma GCC unroll 32
    for (unsigned i = 0; i < k + r; i++) {
        if (plain && i == k)
            continue;
        _mm512_storeu_si512(state, crc[i]);
        crcs[i] = (uint32_t)crc_of_state(CRC_32C, state);
    }
    if (plain) {
        crcs[k] = k % 2 ? 0 : (uint32_t)crc_of_zeros(CRC_32C, length);
        for (unsigned j = 0; j < k; j++)
            crcs[k] ^= crcs[j];
    }
}

static int is_plain(const struct gf_shards *s) {
    int plain = s->outputs > 0;
    for (unsigned j = 0; j < s->inputs; j++)
        plain = plain && s->matrix[j] == 1;
    for (unsigned i = 0; i < s->outputs; i++)
        plain = plain && s->matrix[i * s->inputs] == 1;
    return plain;
}

/* A shape of its own: plain encodings at full speed, everything else of the same size without the shortcuts. */
#define SHAPE(K, R)                                                                                                    \
    if (k == (K) && r == (R)) {                                                                                        \
        if (plain && stream)                                                                                           \
            columns(s, matrices, K, R, start, length, 1, 1, crcs);                                                     \
        else if (plain)                                                                                                \
            columns(s, matrices, K, R, start, length, 0, 1, crcs);                                                     \
        else                                                                                                           \
            columns(s, matrices, K, R, start, length, stream, 0, crcs);                                                \
        return;                                                                                                        \
    }

COLUMNS static void page_by_columns(const struct gf_shards *s, const uint64_t *matrices, size_t start, size_t length,
                                    int stream, uint32_t *crcs) {
    const unsigned k = s->inputs, r = s->outputs;
    const int plain = is_plain(s);
    SHAPE(2, 1)
    SHAPE(3, 2)
    SHAPE(4, 1)
    SHAPE(4, 2)
    SHAPE(6, 3)
    SHAPE(8, 1)
    SHAPE(8, 2)
    SHAPE(8, 3)
    SHAPE(10, 1)
    SHAPE(10, 2)
    SHAPE(10, 4)
    columns(s, matrices, k, r, start, length, stream, 0, crcs);
}
#endif

static void transform_page(const struct gf_shards *s, const uint64_t *matrices, size_t start, size_t length, int stream,
                           uint32_t *crcs) {
    size_t whole = 0;
    memset(crcs, 0, (s->inputs + s->outputs) * sizeof *crcs);
#if defined(__x86_64__)
    if (active >= KERNEL_GFNI512 && length >= 64) {
        whole = length - length % 64;
        page_by_columns(s, matrices, start, whole, stream, crcs);
    }
#else
    (void)matrices, (void)stream;
#endif
    if (whole < length)
        page_by_tiles(s, start + whole, length - whole, crcs);
}

void gf_transform(const struct gf_shards *s, uint8_t *crcs) {
    uint64_t matrices[GF_SHARDS_MAX * GF_SHARDS_MAX];
    uint32_t page[GF_SHARDS_MAX];
    const unsigned shards = s->inputs + s->outputs;
    const size_t pages = (s->length + GF_PAGE_BYTES - 1) / GF_PAGE_BYTES;
    int stream = (size_t)shards * s->length >= STREAM_BYTES;
    for (unsigned i = 0; i < s->outputs; i++)
        stream = stream && (uintptr_t)s->out[i] % 64 == 0;
    for (unsigned i = 0; i < s->outputs * s->inputs; i++)
        matrices[i] = affine[s->matrix[i]];
    for (size_t number = 0; number < pages; number++) {
        size_t start = number * GF_PAGE_BYTES;
        size_t length = s->length - start < GF_PAGE_BYTES ? s->length - start : GF_PAGE_BYTES;
        transform_page(s, matrices, start, length, stream, page);
        for (unsigned i = 0; i < shards; i++)
            for (int byte = 0; byte < 4; byte++)
                crcs[((size_t)s->order[i] * pages + number) * 4 + byte] = (uint8_t)(page[i] >> (8 * byte));
    }
#if defined(__x86_64__)
    if (stream)
        _mm_sfence();
#endif
}
