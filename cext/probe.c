/* The physical limit that the benchmarks compare with: reading memory as fast as one core can. */
#include "kernels.h"

#include <string.h>
#if defined(__x86_64__)
#include <immintrin.h>

__attribute__((target("avx512f"))) static uint64_t read_wide(const uint8_t *data, size_t length) {
    __m512i a = _mm512_setzero_si512(), b = a, c = a, d = a;
    for (size_t at = 0; at + 256 <= length; at += 256) {
        _mm_prefetch((const char *)data + at + 4096, _MM_HINT_T0);
        a = _mm512_xor_si512(a, _mm512_loadu_si512(data + at));
        b = _mm512_xor_si512(b, _mm512_loadu_si512(data + at + 64));
        c = _mm512_xor_si512(c, _mm512_loadu_si512(data + at + 128));
        d = _mm512_xor_si512(d, _mm512_loadu_si512(data + at + 192));
    }
    return (uint64_t)_mm512_reduce_add_epi64(_mm512_xor_si512(_mm512_xor_si512(a, b), _mm512_xor_si512(c, d)));
}
#endif

uint64_t probe_read(const uint8_t *data, size_t length) {
    uint64_t total = 0, word;
#if defined(__x86_64__)
    if (cpu_level() >= KERNEL_GFNI512)
        return read_wide(data, length);
#endif
    for (size_t at = 0; at + 8 <= length; at += 8) {
        memcpy(&word, data + at, 8);
        total ^= word;
    }
    return total;
}
