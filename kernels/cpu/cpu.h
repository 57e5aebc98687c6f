/* The CPU bodies and whether this CPU can run them.
 *
 * gemm_body.h, attention_body.h and rows_body.h hold each algorithm once, written in the small
 * vector vocabulary of vec_*.h; gemm_avx2.c and its like are that text compiled for one instruction
 * set. Within a body a row's bits depend on that row's inputs alone: what is summed is summed in
 * one order, whatever else is computed beside it. */
#ifndef KERNELS_CPU_CPU_H
#define KERNELS_CPU_CPU_H

#include <stdbool.h>

#include "kernels/ops.h"

/* In front of a loop over a register tile: unrolled before anything else, its arrays become
 * registers. The other keeps a loop that would need more of them than there are. */
#if defined(__clang__)
#define UNROLL _Pragma("unroll")
#define NO_UNROLL _Pragma("nounroll")
#else
#define UNROLL _Pragma("GCC unroll 24")
#define NO_UNROLL _Pragma("GCC unroll 1")
#endif

/* Fewer rows of bytes in groups than this are for vectors, with tiles too: of 8 bits and of 4. More
 * rows of 8 bits than one tile has are so up to another number. */
#define TILES_FEW_8 4
#define TILES_MORE_8 28
#define TILES_FEW_4 12

/* Rows of x, about, of which products in tiles keep some columns in L2 while a strip of weights
 * passes by, and what they take for its size. Small where tiles are emulated (the files that
 * compile them say so first), so that tests see several blocks. */
#if defined(TILES_EMULATED)
#define TILES_BLOCK_ROWS 64
#define TILES_L2_BYTES ((size_t)256 << 10)
#else
#define TILES_BLOCK_ROWS 256
#define TILES_L2_BYTES cpu_cache_bytes(2)
#endif

#define CPU_BODY(isa)                                                                              \
    bool cpu_has_##isa(void);                                                                      \
    extern const struct ops cpu_ops_##isa;                                                         \
    void quantize_##isa(const struct op_quantize *a, int part, int parts);                         \
    void round_##isa(const struct op_round *a, int part, int parts);                               \
    void gemm_##isa(const struct op_gemm *a, int part, int parts);                                 \
    void attention_##isa(const struct op_attention *a, int part, int parts);                       \
    double probe_flops_##isa(int64_t rounds);                                                      \
    double probe_read_##isa(const void *data, size_t bytes, int streams);

CPU_BODY(portable)
CPU_BODY(avx2)
CPU_BODY(avx512)
CPU_BODY(vnni)
CPU_BODY(bf16)
CPU_BODY(amx)
CPU_BODY(amx_emulated)

#undef CPU_BODY

/* Instructions beyond the bodies; the files that use them are left out where the compiler does not
 * know them. cpu_amx_permit() also asks the kernel for the tiles' state, once per process. */
bool cpu_amx_permit(void);
double probe_bytes_avx2(int64_t rounds);
double probe_bytes_avx512(int64_t rounds);
double probe_dot_bf16(int64_t rounds);
double probe_dot_int8(int64_t rounds);
double probe_amx_bf16(int64_t rounds, bool from_cache);
double probe_amx_int8(int64_t rounds, bool from_cache);

/* The maker, for what hangs on it and on nothing else that a program can ask for. */
bool cpu_is_amd(void);

/* Bytes of a core's data cache of level 1 or 2, as the system has it; within what cores have, and
 * where it says nothing what the small ones have. */
size_t cpu_cache_bytes(int level);

bool cpu_has_fast_bf16(void); /* faster than with floats */
bool cpu_never(void);         /* of a body that is chosen by its name alone */
/* Whether the bodies of the tiles compute, here, what those of vectors do. */
bool cpu_tiles_agree(const struct ops *tiles, const struct ops *vectors);

/* Scalar, the same for every body: which experts are chosen does not depend on the body more than
 * the logits do. */
void cpu_route(const struct op_route *a, int part, int parts);

#endif
