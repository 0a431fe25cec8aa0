/* Contracts of the kernels. Nothing here knows Python; buffers may have any alignment and length unless it says otherwise. */
#ifndef EDGESTORE_KERNELS_H
#define EDGESTORE_KERNELS_H

#include <stddef.h>
#include <stdint.h>

/* Instruction sets, each a superset of those before it. */
enum kernel_level { KERNEL_PORTABLE = 0, KERNEL_SSSE3, KERNEL_AVX2, KERNEL_GFNI2, KERNEL_GFNI512, KERNEL_LEVELS };

/* The best level that this processor can run. */
enum kernel_level cpu_level(void);

/* Reads every whole 256 bytes of the buffer; the result only keeps the compiler from leaving it out. */
uint64_t probe_read(const uint8_t *data, size_t length);

enum crc_kind { CRC_32 = 0, CRC_32C, CRC_64NVME, CRC_KINDS };

/* Builds tables and folding constants. Call once, before any other function of crc.c. */
void crc_start(enum kernel_level level);

/* The running checksum (as zlib.crc32: finished value in, finished value out). */
uint64_t crc_update(enum crc_kind kind, uint64_t value, const uint8_t *data, size_t length);

/* For kernels that fold 64-byte columns themselves: the two constants, and the value of a state whose first column was xored
 * with all ones in its first bytes (any number of whole columns). */
const uint64_t *crc_fold_512(enum crc_kind kind);
uint64_t crc_of_state(enum crc_kind kind, const uint8_t state[64]);

/* The checksum of `length` zero bytes. */
uint64_t crc_of_zeros(enum crc_kind kind, uint64_t length);

/* The checksum of a + b from those of a and b. */
uint64_t crc_combine(enum crc_kind kind, uint64_t crc_a, uint64_t crc_b, uint64_t length_b);

#define GF_SHARDS_MAX 32
#define GF_PAGE_BYTES 65536

/* outputs = matrix (outputs x inputs, row-major) * inputs; all shards have `length` bytes. `order[i]`: where the checksums of
 * input i, then of output i - inputs, go. inputs + outputs <= GF_SHARDS_MAX. */
struct gf_shards {
    unsigned inputs, outputs;
    const uint8_t *in[GF_SHARDS_MAX];
    uint8_t *out[GF_SHARDS_MAX];
    uint8_t order[GF_SHARDS_MAX];
    const uint8_t *matrix;
    size_t length;
};

/* Builds the tables. Call once, after crc_start. */
void gf_start(enum kernel_level level);

/* Writes the outputs, and the CRC32C (little-endian) of every page of every shard to crcs[(order * pages + page) * 4]. */
void gf_transform(const struct gf_shards *shards, uint8_t *crcs);

/* a[i][j] = 1 / ((k + i) xor j); columns, then rows scaled until row 0 and column 0 are all ones. m rows of k. */
void gf_encode_matrix(unsigned k, unsigned m, uint8_t *out);

/* --- heads of HTTP requests ------------------------------------------------------------------------------ */

#define HEAD_FIELDS_MAX 100

enum head_method { HEAD_GET = 0, HEAD_HEAD, HEAD_PUT };

struct head_span {
    size_t at, length;
};

struct head_field {
    struct head_span name, value;
};

/* A plain head, as places in its bytes. `end`: behind the request line. */
struct head {
    unsigned method, fields;
    int expects_continue, has_host;
    uint64_t body_bytes;
    size_t end;
    struct head_span path, query;
    struct head_field field[HEAD_FIELDS_MAX];
};

/* Builds the table. Call once. */
void head_start(void);

/* A head without its final empty line. 0 unless everything about it is plain; names that appear twice are the caller's to
 * find. */
int head_parse(const uint8_t *data, size_t length, struct head *out);

/* --- writes that are synced -------------------------------------------------------------------------------- */

/* A thread that does one write after the other. */
struct syncer;

/* `wake_fd` (an eventfd) gets 8 bytes whenever a write is done; it stays the caller's. NULL where there is no thread. */
struct syncer *syncer_start(int wake_fd);

/* Takes a copy of `data`, to be written at `offset` and synced. 0; EBUSY: the result of the last one was not taken yet;
 * ENOMEM. */
int syncer_hand_over(struct syncer *syncer, int fd, uint64_t offset, const uint8_t *data, size_t length);

/* Once for each write: 0 or its errno; -1: nothing is done. */
int syncer_result(struct syncer *syncer);

/* The end of it. What a disk that hangs is being given is not waited for: nobody hears of it, and `wake_fd` is free. */
void syncer_stop(struct syncer *syncer);

#endif
