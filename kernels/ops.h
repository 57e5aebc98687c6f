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
 * Attention walks positions in fixed spans of OPS_KV_SPAN absolute positions, sums begin anew in
 * fixed stretches of some of them (tiles take a whole one at a time), so chunking and prefix hits
 * change no bit. Across bodies results agree to a tolerance.
 *
 * Shapes are row-major; [M,K] means M rows of K; a stride of 0 means dense. Pointers must not
 * overlap unless said.
 *
 * The list of ops is over 150 lines because each is said in full, once.
 */
#ifndef KERNELS_OPS_H
#define KERNELS_OPS_H

#include <stddef.h>
#include <stdint.h>

#include "base/status.h"
#include "kernels/dtype.h"
#include "kernels/fp8.h"
#include "kernels/kv_layout.h"
#include "kernels/packed.h"
#include "kernels/panels.h"

#define OPS_KV_SPAN 64 /* absolute positions per step of attention */
#define OPS_HEAD_DIM_MAX 1024
#define OPS_ATTENTION_COUNTS ((size_t)16 << 10) /* bytes of attention's scratch that are counts */
#define OPS_EXPERTS_MAX 4096
#define OPS_TOP_K_MAX 64
#define QUANTIZE_LEAST 0x1p-100f

/* A weight matrix as stored: [rows, cols], possibly unaligned (mapped file), or packed, or in
 * panels (aligned to a cache line). */
struct matrix {
    const void *data;
    enum dtype dtype;
    int32_t rows, cols;
    const struct packed *packed; /* NULL: `data` it is; embed and gemm alone take these */
    bool panels; /* data is in the order of kernels/panels.h, bf16 or FP8; likewise */
    const struct fp8_grid *fp8; /* data is in FP8, in place of dtype: the same two take it */
    bool wide_rows; /* packed, in order: gemms read x as floats or in bf16 (x16), not as bytes */
    bool rounds;    /* for gemms that read x in bf16 (op_gemm.x16): bf16, FP8, wide_rows */
};

/* An element in FP8, before it is scaled. */
static inline uint8_t matrix_fp8_at(const struct matrix *w, size_t row, size_t col)
{
    const size_t at = w->panels ? panels8_at(w->cols, row, col) : row * (size_t)w->cols + col;
    return ((const uint8_t *)w->data)[at];
}

/* Whether gemms read x as small integers (op_gemm.x8). */
static inline bool matrix_reads_bytes(const struct matrix *w)
{
    return w->packed && !w->wide_rows;
}

/* Rows of small integers, what packed weights are multiplied with: x = scale * q, |q| <= 127, in
 * spans of PACKED_SPAN elements, of which two have one scale where they are paired, and all of a
 * row where it is whole. */
struct rows8 {
    int8_t *q;    /* [tokens][spans * PACKED_SPAN], rows8_stride() apart; zeros behind the end */
    float *scale; /* [tokens][spans] */
    int32_t *sum; /* [tokens][2 * spans] sums of q, of half a span each */
    int32_t spans;
    bool paired; /* spans 2i and 2i + 1 have one scale; their number is even */
    bool whole;  /* all of a row have one scale; paired as well */
};
/* From one row of q to the next: an odd number of cache lines, as rows16_stride() is. */
static inline size_t rows8_stride(int32_t spans)
{
    return (((size_t)spans + 1) / 2 | 1) * 64;
}
static inline struct rows8 rows8_from(const struct rows8 *r, size_t row)
{
    const size_t spans = (size_t)r->spans;
    struct rows8 from = *r;
    from.q += row * rows8_stride(r->spans);
    from.scale += row * spans;
    from.sum += row * spans * 2;
    return from;
}

/* Elements from one row of bf16 to the next: an odd number of cache lines, so that the rows of a
 * tile, and of weights of the same width, are not all in one set of the cache. */
static inline size_t rows16_stride(int32_t dim)
{
    return ((size_t)dim + 31) / 32 / 2 * 64 + 32;
}

/* out = x in bf16, to nearest even, and zeros up to a multiple of PACKED_SPAN. */
struct op_round {
    uint16_t *out;      /* bf16 [tokens, dim], rows16_stride(dim) apart */
    const float *x;     /* [tokens, dim] */
    const int32_t *row; /* [tokens] the row of x of each; NULL: its own */
    int32_t tokens, dim;
};

/* q = round(x / scale), scale = max|x| / 127 of each span, of two, or of a whole row; with an
 * element that is no number the scale is none, one of less than QUANTIZE_LEAST counts as zeros. */
struct op_quantize {
    struct rows8 out;
    const float *x; /* [tokens, dim], row stride x_stride elements */
    int32_t tokens, dim;
    int32_t x_stride;     /* 0: dense */
    const int32_t *row;   /* [tokens] the row of x of each; NULL: its own */
    const int32_t *order; /* [dim] q[m][i] is of x[..][order[i]]; NULL: of x[..][i] */
};

/* out[m] = table[ids[m]] * scale */
struct op_embed {
    float *out;                 /* [tokens, table.cols] */
    const struct matrix *table; /* [vocab, hidden] */
    const int32_t *ids;         /* [tokens], each < table.rows */
    float scale;                /* 0: 1 */
    int32_t tokens;
};

/* y = x[m,g] / sqrt(mean(x[m,g]^2) + eps) * (weight + offset)      (Zhang & Sennrich 2019), for
 * each of `groups` adjacent runs of `dim` elements in a row; out = y * scale, or out += y * scale
 * when accumulate. out may be x. */
struct op_rmsnorm {
    float *out;                  /* [tokens, groups, dim], row stride out_stride elements */
    const float *x;              /* [tokens, groups, dim], row stride x_stride elements */
    const struct matrix *weight; /* [1, dim], shared by the groups */
    float eps, offset;           /* offset 1: weights are stored as their distance from 1 */
    float scale;                 /* 0: 1 */
    int32_t tokens, dim;
    int32_t groups;               /* 0: 1 */
    int32_t x_stride, out_stride; /* 0: dense */
    int accumulate;
};

enum glu_kind {
    GLU_SILU,      /* silu(gate) * up                                       (Shazeer 2020) */
    GLU_GELU_TANH, /* gelu(gate) * up, gelu by tanh */
    GLU_GELU,      /* the same, gelu by erf */
    GLU_CLAMPED,   /* g sigmoid(alpha g) (u + 1), g = min(gate, limit), u = clamp(up, +-limit) */
};

/* In place of what a gemm gives, with that of a second matrix: unit(x w^T, x up^T), as op_glu has
 * it, bit for bit. */
struct gemm_unit {
    const struct matrix *up; /* of w's shape and form */
    const float *up_bias;    /* [N] or NULL */
    enum glu_kind kind;
    float limit, alpha;
    uint16_t *out16; /* where it is not NULL, in place of out, as op_round leaves it */
};

/* out[m,n] = scale * (sum_k x[m,k] * w[n,k]  (+ bias[n])) (+ out[m,n] when accumulate) */
struct op_gemm {
    float *out;             /* [tokens, w.rows], row stride out_stride elements */
    const float *x;         /* [tokens, w.cols], row stride x_stride elements */
    const struct rows8 *x8; /* x as integers, in w's order; read where matrix_reads_bytes(w) */
    const uint16_t *x16;    /* x as op_round leaves it; read in its place where there is one */
    const struct matrix *w; /* [N, K] */
    const float *bias;      /* [N] or NULL */
    float scale;            /* 0: 1 */
    int32_t tokens;
    int32_t x_stride, out_stride; /* 0: dense */
    int32_t first, end; /* of out these columns alone: multiples of PACKED_ROWS, or end all or 0 */
    int accumulate;
    const struct gemm_unit *unit; /* or NULL; see ops_gates(). Without scale and accumulate */
};

/* Rotary embedding in place (Su et al. 2021). Element i pairs with i + head_dim/2, the "rotate
 * half" form of Hugging Face, or where `interleaved` 2i with 2i + 1. angle(pos, i) = pos *
 * inv_freq[i]; cos and sin are scaled by `attention_factor`. From position `dynamic_from` on (0:
 * never) the frequencies are those of dynamic NTK scaling for a context of pos + 1 tokens. */
struct op_rope {
    float *x;                   /* [tokens, heads, head_dim], row stride x_stride elements */
    const int32_t *positions;   /* [tokens] */
    const float *inv_freq;      /* [head_dim / 2] */
    const float *long_inv_freq; /* [head_dim / 2] of the rows whose sequence is_long; or NULL */
    const uint8_t *is_long;     /* [sequences], or NULL */
    const int32_t *seq_of;      /* [tokens], where is_long */
    float attention_factor;
    int32_t tokens, heads;
    int32_t head_dim;              /* elements rotated, even */
    int32_t head_stride, x_stride; /* 0: dense */
    int32_t dynamic_from;
    double dynamic_theta, dynamic_factor;
    int interleaved;
    /* Of each token cosines, then sines, [tokens, head_dim], or NULL. A body may leave them there,
     * and take them from there where `angled`: ops on the same positions need them once. All parts
     * of the op that left them must have met. */
    float *angles;
    bool angled;
};

/* Where a ragged batch's rows belong. Row r is the token at `positions[r]` of sequence `seq_of[r]`,
 * whose blocks are block_tables[seq_of[r]]. Rows of one sequence are adjacent and ascend by one. */
struct op_rows {
    const int32_t *positions;           /* [tokens] */
    const int32_t *seq_of;              /* [tokens] */
    const int32_t *const *block_tables; /* [sequences][blocks of that sequence] */
    int32_t tokens;
};

/* Rounds k and v to the pool's dtype (kv_vector.h) and stores them at their rows' slots. */
struct op_kv_store {
    void *pool;
    const struct kv_layout *layout;
    int32_t layer;
    const float *k; /* [tokens, kv_heads, head_dim], row stride kv_stride elements */
    const float *v; /* [tokens, kv_heads, value_dim]; unused where the layout has no values */
    int32_t kv_stride;
    const struct op_rows *rows;
};

/* Causal attention of each row r over the positions max(0, positions[r] + 1 - window) ..
 * positions[r] of its sequence, read from the pool (the rows' own keys must have been stored).
 * Query head h reads kv head h / (heads / kv_heads). Online softmax (Milakov & Gimelshein 2018)
 * over spans of OPS_KV_SPAN positions, or stretches of them. Where the layout has no values
 * (value_dim 0), the first `out_dim` elements of a key are its value: latent attention in absorbed
 * form (DeepSeek-V2, 2024). Blocks that no row's window reaches are not looked up. */
struct op_attention {
    float *out;     /* [tokens, heads, out_dim] */
    const float *q; /* [tokens, heads, head_dim], row stride q_stride elements */
    int32_t q_stride;
    int32_t out_dim; /* 0: the layout's value_dim; another only where it has no values */
    const void *pool;
    const struct kv_layout *layout;
    int32_t layer;
    int32_t heads;
    int32_t window;     /* 0: all */
    float scale;        /* usually 1/sqrt(head_dim) */
    float softcap;      /* scores become cap * tanh(score / cap); 0: not */
    const float *sinks; /* [heads] scores of a position that has no value (GPT-OSS), or NULL */
    const struct op_rows *rows;
    /* A body may round queries and weights to bf16 where keys are bf16; and what is stored in
     * another type than fp32 as well, where all of it goes in tiles. */
    bool rounds;
    /* Where parts that share a row's positions meet; zeros before its first use, aligned to a cache
     * line, of one call at a time: every part of it has to run before the next one. Without
     * (NULL, 0), or where it is too small, a row and kv head is one part's alone. */
    void *scratch;
    size_t scratch_bytes; /* more than OPS_ATTENTION_COUNTS, or 0 */
};

/* out[m,i] = kind(gate[m,i], up[m,i]); out may be gate where its rows are dense. gate and up have
 * row stride in_stride elements. */
struct op_glu {
    float *out;      /* [tokens, dim] */
    uint16_t *out16; /* where it is not NULL, in place of out, as op_round leaves it: of bodies
                      * that have that op */
    const float *gate, *up;
    enum glu_kind kind;
    float limit, alpha; /* of GLU_CLAMPED */
    int32_t tokens, dim, in_stride;
};

/* x = cap * tanh(x / cap) */
struct op_softcap {
    float *x; /* [n] */
    float cap;
    int64_t n;
};

enum route_score {
    ROUTE_SOFTMAX,     /* of all experts, then the best are taken */
    ROUTE_SOFTMAX_TOP, /* the best are taken, then the softmax of these */
    ROUTE_SIGMOID,     /* of each */
};

/* Which experts a token goes to, and their weights. The experts with the highest score + bias are
 * chosen; where there are groups, among those of the `top_groups` best groups only, by a group's
 * highest score, or the sum of its two highest where there is a bias (DeepSeek-V2, -V3). Of equals
 * the first. The weights are the scores without bias, divided by their sum where `normalize`, times
 * scale. */
struct op_route {
    int32_t *expert;     /* [tokens, top_k] in descending order of choice */
    float *weight;       /* [tokens, top_k] */
    const float *logits; /* [tokens, experts] */
    const float *bias;   /* [experts] or NULL */
    enum route_score score;
    float scale; /* 0: 1 */
    int32_t tokens, experts, top_k;
    int32_t groups, top_groups; /* groups 0: none */
    int normalize;
};

/* out[m] (+)= scale * (sum_k weight[m,k] * y[row[m,k]] + bias), k ascending; a weight counts as its
 * sigmoid where `sigmoid`. */
struct op_combine {
    float *out;          /* [tokens, dim] */
    const float *y;      /* rows of dim */
    const int32_t *row;  /* [tokens, k], or NULL: m * k + its place */
    const float *weight; /* [tokens, k] */
    const float *bias;   /* [dim] or NULL */
    float scale;         /* 0: 1 */
    int32_t tokens, dim, k;
    int accumulate, sigmoid;
};

struct ops {
    const char *name; /* "ref", "portable", "avx2", "avx512", "avx512_vnni", ... */
    void (*embed)(const struct op_embed *a, int part, int parts);
    void (*rmsnorm)(const struct op_rmsnorm *a, int part, int parts);
    void (*gemm)(const struct op_gemm *a, int part, int parts);
    void (*quantize)(const struct op_quantize *a, int part, int parts);
    void (*round)(const struct op_round *a, int part, int parts); /* NULL: gemm has no use for it */
    bool panels; /* and gemm takes bf16 and FP8 that is read by what that makes in panels alone */
    bool tiles;  /* products are made in tiles, of bytes too, and of all types of KV */
    bool gates;  /* gemm takes op_gemm.unit: see ops_gates() */
    /* So many rows of x, about, gemm goes through at a time, by weights in panels or with a scale a
     * row; 0: as many as there are. See ops_gemm_blocks(). */
    int32_t block_rows;
    void (*rope)(const struct op_rope *a, int part, int parts);
    void (*kv_store)(const struct op_kv_store *a, int part, int parts);
    void (*attention)(const struct op_attention *a, int part, int parts);
    void (*glu)(const struct op_glu *a, int part, int parts);
    void (*softcap)(const struct op_softcap *a, int part, int parts);
    void (*route)(const struct op_route *a, int part, int parts);
    void (*combine)(const struct op_combine *a, int part, int parts);
};

/* Whether gemms by wide_rows may read x in bf16. */
static inline bool ops_wide_reads_pairs(const struct ops *o)
{
    return o->round != NULL;
}

/* Whether this gemm may have a unit whose second matrix is `up`: rows are many, weights alike. What
 * is cut of it, to one row if need be, may have it too. */
bool ops_gates(const struct ops *o, const struct op_gemm *a, const struct matrix *up);

/* How many blocks of about `each` rows these are: one and a half times that at most. */
static inline size_t ops_blocks(size_t rows, size_t each)
{
    const size_t blocks = (rows + each / 2) / each;
    return blocks > 0 ? blocks : 1;
}

/* In how many blocks of rows this gemm is best cut before it is cut by columns: a thread that stays
 * at one has its rows in its cache, where they fit. 1: rows are few, or it makes no difference. */
size_t ops_gemm_blocks(const struct ops *o, const struct op_gemm *a);
#define OPS_BLOCK_GRAIN 32 /* rows that blocks are multiples of, but the last: two tiles */

/* Makes of a gemm that of rows [first, first + n) alone. */
struct op_gemm_rows {
    struct op_gemm op; /* points to what is below: may not be copied */
    struct rows8 x8;
    struct gemm_unit unit;
};
void ops_cut_rows(const struct op_gemm *a, size_t first, size_t n, struct op_gemm_rows *out);
/* That of the block'th of so many blocks of rows, which may be empty. */
void ops_cut_block(const struct op_gemm *a, size_t block, size_t blocks, struct op_gemm_rows *out);

const struct ops *ops_ref(void);
/* `features`: "auto" or a body's name; a body that this CPU lacks is ST_UNSUPPORTED.
 */
enum status ops_cpu(const char *features, const struct ops **out, struct error *err);
/* The i-th body that can run on this CPU, NULL past the end: for tests and benchmarks. ref comes
 * first. */
const struct ops *ops_at(int i);

#endif
