/* The op table: every operation of the forward pass once, with plain argument structs.
 *
 * A backend is a const table of these functions: `ref/` is the slow obvious truth, `cpu/` picks its
 * best body at start (portable, AVX2, AVX-512), later `cuda/`. On a CPU each op is called by every
 * member of a team with its `part` of `parts` and does its static share; the caller puts a barrier
 * between ops that depend on each other. Ops never allocate, block, log or fail: arguments are
 * checked when the model is built.
 *
 * Exactness: activations are fp32; a row's result depends on that row's inputs alone and is
 * computed in one order of K whatever M, `parts`, the batch's other rows or the block size are.
 * Attention walks positions in fixed spans of OPS_KV_SPAN absolute positions, so chunking and
 * prefix hits change no bit. Across bodies results agree to a tolerance.
 *
 * Shapes are row-major; [M,K] means M rows of K; a stride of 0 means dense. Pointers must not
 * overlap unless said.
 */
#ifndef KERNELS_OPS_H
#define KERNELS_OPS_H

#include <stddef.h>
#include <stdint.h>

#include "base/status.h"
#include "kernels/dtype.h"
#include "kernels/kv_layout.h"

#define OPS_KV_SPAN 64 /* absolute positions per step of the online softmax */
#define OPS_HEAD_DIM_MAX 1024

/* A weight matrix as stored: [rows, cols], possibly unaligned (mapped file). */
struct matrix {
    const void *data;
    enum dtype dtype;
    int32_t rows, cols;
};

/* out[m] = table[ids[m]] */
struct op_embed {
    float *out;                 /* [tokens, table.cols] */
    const struct matrix *table; /* [vocab, hidden] */
    const int32_t *ids;         /* [tokens], each < table.rows */
    int32_t tokens;
};

/* out[m] = x[m] / sqrt(mean(x[m]^2) + eps) * weight        (Zhang & Sennrich 2019); out may be x */
struct op_rmsnorm {
    float *out;                  /* [tokens, dim] */
    const float *x;              /* [tokens, dim] */
    const struct matrix *weight; /* [1, dim] */
    float eps;
    int32_t tokens, dim;
};

/* out[m,n] = sum_k x[m,k] * w[n,k]  (+ bias[n]) (+ out[m,n] when accumulate) */
struct op_gemm {
    float *out;             /* [tokens, w.rows], row stride out_stride elements */
    const float *x;         /* [tokens, w.cols], row stride x_stride elements */
    const struct matrix *w; /* [N, K] */
    const float *bias;      /* [N] or NULL */
    int32_t tokens;
    int32_t x_stride, out_stride; /* 0: dense */
    int accumulate;
};

/* Rotary embedding in place, the "rotate half" form of Hugging Face: element i pairs with i +
 * head_dim/2 (Su et al. 2021). angle(pos, i) = pos * inv_freq[i]; cos and sin are scaled by
 * `attention_factor`. */
struct op_rope {
    float *x;                 /* [tokens, heads, head_dim], row stride x_stride elements */
    const int32_t *positions; /* [tokens] */
    const float *inv_freq;    /* [head_dim / 2] */
    float attention_factor;
    int32_t tokens, heads, head_dim, x_stride;
};

/* Where a ragged batch's rows belong. Row r is the token at `positions[r]` of sequence `seq_of[r]`,
 * whose blocks are block_tables[seq_of[r]]. Rows of one sequence are adjacent and ascend by one. */
struct op_rows {
    const int32_t *positions;           /* [tokens] */
    const int32_t *seq_of;              /* [tokens] */
    const int32_t *const *block_tables; /* [sequences][blocks of that sequence] */
    int32_t tokens;
};

/* Rounds k and v to the pool's dtype and stores them at their rows' slots. */
struct op_kv_store {
    void *pool;
    const struct kv_layout *layout;
    int32_t layer;
    const float *k, *v; /* [tokens, kv_heads, head_dim], row stride kv_stride elements */
    int32_t kv_stride;
    const struct op_rows *rows;
};

/* Causal attention of each row over positions 0..positions[r] of its sequence, read from the pool
 * (the rows' own keys must have been stored). Query head h reads kv head h / (heads / kv_heads).
 * Online softmax (Milakov & Gimelshein 2018) over spans of OPS_KV_SPAN positions. */
struct op_attention {
    float *out;     /* [tokens, heads, head_dim] */
    const float *q; /* [tokens, heads, head_dim], row stride q_stride elements */
    int32_t q_stride;
    const void *pool;
    const struct kv_layout *layout;
    int32_t layer;
    int32_t heads;
    float scale; /* usually 1/sqrt(head_dim) */
    const struct op_rows *rows;
};

/* out[m,i] = silu(gate[m,i]) * up[m,i]; out may be gate where its rows are dense. gate and up have
 * row stride in_stride elements. */
struct op_silu_mul {
    float *out; /* [tokens, dim] */
    const float *gate, *up;
    int32_t tokens, dim, in_stride;
};

struct ops {
    const char *name; /* "ref", "portable", "avx2", "avx512" */
    void (*embed)(const struct op_embed *a, int part, int parts);
    void (*rmsnorm)(const struct op_rmsnorm *a, int part, int parts);
    void (*gemm)(const struct op_gemm *a, int part, int parts);
    void (*rope)(const struct op_rope *a, int part, int parts);
    void (*kv_store)(const struct op_kv_store *a, int part, int parts);
    void (*attention)(const struct op_attention *a, int part, int parts);
    void (*silu_mul)(const struct op_silu_mul *a, int part, int parts);
};

const struct ops *ops_ref(void);
/* `features`: "auto", "portable", "avx2", "avx512"; a body that this CPU lacks is ST_UNSUPPORTED.
 */
enum status ops_cpu(const char *features, const struct ops **out, struct error *err);
/* The i-th body that can run on this CPU, NULL past the end: for tests and benchmarks. ref comes
 * first. */
const struct ops *ops_at(int i);

#endif
