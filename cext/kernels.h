/* Contracts of the kernels. Nothing here knows Python; buffers may have any alignment and length unless it says otherwise. */
#ifndef EDGESTORE_KERNELS_H
#define EDGESTORE_KERNELS_H

#include <stddef.h>
#include <stdint.h>

/* Instruction sets, each a superset of those before it. */
enum kernel_level { KERNEL_PORTABLE = 0, KERNEL_SSSE3, KERNEL_AVX2, KERNEL_GFNI2, KERNEL_GFNI512, KERNEL_LEVELS };

/* The best level that this processor can run. */
enum kernel_level cpu_level(void);

enum crc_kind { CRC_32 = 0, CRC_32C, CRC_64NVME, CRC_KINDS };

/* Builds tables and folding constants. Call once, before any other function of crc.c. */
void crc_start(enum kernel_level level);

/* The running checksum (as zlib.crc32: finished value in, finished value out). */
uint64_t crc_update(enum crc_kind kind, uint64_t value, const uint8_t *data, size_t length);

/* The checksum of a + b from those of a and b. */
uint64_t crc_combine(enum crc_kind kind, uint64_t crc_a, uint64_t crc_b, uint64_t length_b);

#endif
