/* What this processor can do, asked once. */
#include "kernels.h"

enum kernel_level cpu_level(void) {
#if defined(__x86_64__)
    __builtin_cpu_init();
    if (!__builtin_cpu_supports("ssse3") || !__builtin_cpu_supports("pclmul") ||
        !__builtin_cpu_supports("sse4.1"))
        return KERNEL_PORTABLE;
    if (!__builtin_cpu_supports("avx2"))
        return KERNEL_SSSE3;
    if (!__builtin_cpu_supports("gfni") || !__builtin_cpu_supports("vpclmulqdq"))
        return KERNEL_AVX2;
    if (!__builtin_cpu_supports("avx512f") || !__builtin_cpu_supports("avx512bw") ||
        !__builtin_cpu_supports("avx512vl") || !__builtin_cpu_supports("avx512dq"))
        return KERNEL_GFNI2;
    return KERNEL_GFNI512;
#else
    return KERNEL_PORTABLE;
#endif
}
