/* What kernels/bench.c is made of: the shapes to be timed, the forms that weights and KV have, and
 * for each op how one call is prepared and run. A job is one op about to be timed, on one body, of
 * one shape, in one form; there is one, which is prepared again for each row.
 *
 * Owner: kernels/bench.c. Thread: the creator prepares; every member of the team runs, and writes
 * to the arrays alone that ops write to, and member 0 to `pairs`.
 *
 * It is over 150 lines because a job has all that any op needs. */
#ifndef KERNELS_BENCH_JOB_H
#define KERNELS_BENCH_JOB_H

#include "base/work.h"
#include "kernels/bench.h"
#include "kernels/logits.h"
#include "kernels/ops.h"

#define BENCH_FLOATS ((size_t)1024 * 8192) /* the largest activation of any shape */
#define BENCH_ROWS_MAX 4096                /* of x as bytes or in bf16: pairs of a mixture */
#define BENCH_TOKENS_MAX 2048
#define BENCH_EXPERTS_MAX 256
#define BENCH_SEQUENCES_MAX 32
#define BENCH_CONTEXT_MAX 8448
#define BENCH_BLOCK_TOKENS 16
/* Elements of the arrays below. */
#define BENCH_LOGITS ((size_t)BENCH_TOKENS_MAX * BENCH_EXPERTS_MAX)
#define BENCH_PAIRS16 (BENCH_FLOATS + (size_t)64 * BENCH_ROWS_MAX)
#define BENCH_BYTES8 (BENCH_FLOATS + (size_t)128 * BENCH_ROWS_MAX)
#define BENCH_SPANS (BENCH_FLOATS / PACKED_SPAN)

/* How what is stored is read: a dtype, or as weights alone have it. */
enum bench_form {
    FORM_F32 = DTYPE_F32,
    FORM_BF16 = DTYPE_BF16,
    FORM_F16 = DTYPE_F16,
    FORM_KV_FP8 = DTYPE_FP8,
    FORM_KV_INT8 = DTYPE_INT8,
    FORM_KV_INT4 = DTYPE_INT4,
    FORM_BF16_ROWS = DTYPE_KV_COUNT, /* times rows of bf16; of KV: queries are rounded */
    FORM_KV_F16_ROWS,                /* of KV alone: what is read is rounded, too */
    FORM_KV_FP8_ROWS,
    FORM_KV_INT8_ROWS,
    FORM_KV_INT4_ROWS,
    FORM_FP8,
    FORM_FP8_ROWS,
    FORM_Q8,
    FORM_Q4,
    FORM_Q8_PAIRED, /* groups of 128, and rows whose spans are paired */
    FORM_Q4_PAIRED,
    FORM_Q8_WHOLE, /* one scale for a row, of weights and of x */
    FORM_Q8_WIDE,
    FORM_Q4_WIDE,
    FORM_Q4_WIDE_MINS, /* in groups of 128, with mins */
    FORMS
};
#define FORM_BIT(form) (1U << (form))
const char *bench_form_name(enum bench_form f);
/* What KV of this form is stored as. */
enum dtype bench_form_kv(enum bench_form f);

/* a, b, c: N and K of products; heads, kv_heads and head_dim of attention; heads and head_dim of
 * rope and kv_store; of other ops the elements of a row. */
struct bench_shape {
    const struct bench_op *op;
    int32_t tokens, a, b, c;
    int32_t start;     /* attention: positions before the batch; each of `sequences` */
    int32_t sequences; /* 0: 1 */
    int32_t out_dim;   /* attention: keys hold the values, which have so many elements */
    int32_t window;
    int32_t experts, top_k, groups;
    bool sinks;
    bool thorough; /* left out of a quick run */
    bool few;      /* in bf16 alone: of KV, times rows of floats and of bf16 */
};
extern const struct bench_shape bench_shapes[];
extern const size_t bench_shapes_n;

/* Weights of one matrix: where they lie is said at last. */
struct bench_weights {
    struct matrix matrix;
    struct packed packed;
    struct fp8_grid fp8;
    size_t bytes;
};

/* Tokens and the experts that they go to, sorted by expert, as model/moe.c has them. */
struct bench_pairs {
    int32_t expert[BENCH_ROWS_MAX]; /* of each choice */
    float weight[BENCH_ROWS_MAX];
    int32_t pair_of[BENCH_ROWS_MAX]; /* of each choice, in order of expert */
    int32_t row_of[BENCH_ROWS_MAX];  /* of each pair: its token */
    int32_t end[BENCH_EXPERTS_MAX];  /* of each expert's pairs */
};

struct bench_job {
    struct team *team;
    struct work *work;
    char *buffer; /* weights or KV */
    size_t buffer_bytes;
    float *x, *y, *z; /* BENCH_FLOATS each; x is read alone */
    float *logits;    /* of BENCH_EXPERTS_MAX experts at most */
    uint16_t *x16;    /* x, as gemms may want it; rows16_stride() */
    struct rows8 x8;  /* the same */
    char *scratch;    /* of attention */
    size_t scratch_bytes;
    struct bench_pairs *pairs;     /* written to by member 0 while it runs */
    int32_t ids[BENCH_TOKENS_MAX]; /* of a small table, or positions */

    const struct bench_shape *shape;
    const struct ops *ops;
    const struct logits_body *peaks; /* in place of ops, of ops on logits */
    const char *backend;
    enum bench_form form;

    /* Set by prepare(). One call reads so many pieces of the buffer, one after the other. */
    size_t piece_bytes, pieces, first_piece;
    double flops, bytes;
    enum kernels_math math;
    struct bench_weights weights; /* of one piece */
    struct kv_layout layout;
    struct op_rows rows;
    int32_t positions[BENCH_TOKENS_MAX], seq_of[BENCH_TOKENS_MAX];
    int32_t blocks[BENCH_SEQUENCES_MAX][BENCH_CONTEXT_MAX / BENCH_BLOCK_TOKENS];
    const int32_t *tables[BENCH_SEQUENCES_MAX];
};

struct bench_op {
    const char *name;
    uint32_t forms; /* FORM_BIT() each; FORM_F32 alone: has neither weights nor KV */
    bool streams;   /* reads memory, not the cache */
    bool of_logits; /* of the bodies of kernels/logits.h */
    /* Sets what the comment above says; false: this body has no such op. */
    bool (*prepare)(struct bench_job *j);
    void (*run)(const struct bench_job *j, int part, int parts);
    void (*describe)(const struct bench_job *j, char *text, size_t cap);
};
extern const struct bench_op bench_gemm, bench_gated, bench_mixture, bench_attention,
    bench_kv_store, bench_embed, bench_rmsnorm, bench_rope, bench_glu, bench_quantize, bench_round,
    bench_route, bench_combine, bench_softcap, bench_peak, bench_skip, bench_weigh;

/* What ops share. */
char *bench_piece(const struct bench_job *j, size_t i);
void bench_set_pieces(struct bench_job *j, size_t n, size_t bytes);
enum kernels_math bench_form_math(const struct ops *o, enum bench_form f);
/* Whether the body has products of such weights by rows like that. */
bool bench_form_runs(const struct ops *o, enum bench_form f);
struct bench_weights bench_weights_of(const struct bench_job *j, int32_t rows, int32_t cols);
/* The matrix, its parts in the memory at `at`; the struct may not be moved after that. */
const struct matrix *bench_weights_place(struct bench_weights *w, char *at);
/* x8 as rows of so many columns in the job's form. */
struct rows8 bench_rows8(const struct bench_job *j, int32_t cols);

#endif
