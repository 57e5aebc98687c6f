/* Hashes: CRC32C (Castagnoli; hardware when the CPU has it) against faults on the wire, and a
 * 64-bit mixing hash for tables and fingerprints. Neither resists an adversary: what must be exact
 * compares contents. Thread: any. */
#ifndef BASE_HASH_H
#define BASE_HASH_H

#include <stddef.h>
#include <stdint.h>

/* CRC32C of `data`, continuing from `crc` (0 to begin): crc32c(crc32c(0, a), b) == crc32c(0, ab).
 */
uint32_t hash_crc32c(uint32_t crc, const void *data, size_t bytes);
/* The same from tables: what runs on a CPU without the instruction, here to be tested on every CPU.
 */
uint32_t hash_crc32c_portable(uint32_t crc, const void *data, size_t bytes);
/* 64-bit hash of bytes, continuing from `seed`; little-endian-stable across hosts. */
uint64_t hash_bytes(uint64_t seed, const void *data, size_t bytes);

#endif
