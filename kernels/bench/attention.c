/* Attention over a paged pool, and storing into one. The blocks of sequences lie in turns. */
#include <assert.h>
#include <stdio.h>

#include "kernels/bench/job.h"

#define FORMS_OF_KV                                                                                \
    (FORM_BIT(FORM_F32) | FORM_BIT(FORM_BF16) | FORM_BIT(FORM_F16) | FORM_BIT(FORM_KV_FP8) |       \
     FORM_BIT(FORM_KV_INT8) | FORM_BIT(FORM_KV_INT4))
#define FORMS_ROUNDED                                                                              \
    (FORM_BIT(FORM_BF16_ROWS) | FORM_BIT(FORM_KV_F16_ROWS) | FORM_BIT(FORM_KV_FP8_ROWS) |          \
     FORM_BIT(FORM_KV_INT8_ROWS) | FORM_BIT(FORM_KV_INT4_ROWS))

static int32_t sequences_of(const struct bench_shape *s)
{
    return s->sequences ? s->sequences : 1;
}

/* Lays out the sequences, of so many kv heads. */
static void lay_out(struct bench_job *j, int32_t kv_heads, int32_t dim)
{
    const struct bench_shape *s = j->shape;
    const int32_t sequences = sequences_of(s), each = s->tokens / sequences;
    const int32_t blocks = (s->start + each + BENCH_BLOCK_TOKENS - 1) / BENCH_BLOCK_TOKENS;
    assert(sequences <= BENCH_SEQUENCES_MAX && s->start + each <= BENCH_CONTEXT_MAX);
    for (int32_t q = 0; q < sequences; q++) {
        j->tables[q] = j->blocks[q];
        for (int32_t i = 0; i < blocks; i++)
            j->blocks[q][i] = i * sequences + q;
    }
    for (int32_t r = 0; r < s->tokens; r++) {
        j->seq_of[r] = r / each;
        j->positions[r] = s->start + r % each;
    }
    j->layout = (struct kv_layout){.layers = 1,
                                   .kv_heads = kv_heads,
                                   .head_dim = dim,
                                   .value_dim = s->out_dim ? 0 : dim,
                                   .block_tokens = BENCH_BLOCK_TOKENS,
                                   .blocks = blocks * sequences,
                                   .dtype = bench_form_kv(j->form)};
    j->rows = (struct op_rows){.positions = j->positions,
                               .seq_of = j->seq_of,
                               .block_tables = j->tables,
                               .tokens = s->tokens};
    bench_set_pieces(j, 1, kv_pool_bytes(&j->layout));
}

/* Positions that a row reads, up to its own. */
static int32_t reach_of(const struct bench_shape *s, int32_t position)
{
    return s->window && s->window <= position ? s->window : position + 1;
}

static bool prepare_attention(struct bench_job *j)
{
    const struct bench_shape *s = j->shape;
    const int32_t each = s->tokens / sequences_of(s), out_dim = s->out_dim ? s->out_dim : s->c;
    if (!bench_form_runs(j->ops, j->form))
        return false;
    lay_out(j, s->b, s->c);
    j->math = bench_form_math(j->ops, j->form);
    j->flops = 0;
    for (int32_t r = 0; r < s->tokens; r++)
        j->flops += 2.0 * reach_of(s, j->positions[r]) * s->a * (s->c + out_dim);
    /* From the first row's first position to the last row's own. */
    j->bytes = (double)sequences_of(s) * (reach_of(s, s->start) + each - 1) *
               (double)kv_token_bytes(&j->layout);
    return true;
}

static void run_attention(const struct bench_job *j, int part, int parts)
{
    const struct bench_shape *s = j->shape;
    const struct op_attention a = {.out = j->y,
                                   .q = j->x,
                                   .out_dim = s->out_dim,
                                   .pool = bench_piece(j, 0),
                                   .layout = &j->layout,
                                   .heads = s->a,
                                   .window = s->window,
                                   .scale = 0.125f,
                                   .sinks = s->sinks ? j->x : NULL,
                                   .rows = &j->rows,
                                   .rounds = j->math == KERNELS_MATH_BF16,
                                   .scratch = j->scratch,
                                   .scratch_bytes = j->scratch_bytes};
    j->ops->attention(&a, part, parts);
}

static void describe_attention(const struct bench_job *j, char *text, size_t cap)
{
    const struct bench_shape *s = j->shape;
    char out[16] = "", window[24] = "";
    if (s->out_dim)
        snprintf(out, sizeof out, " out=%d", s->out_dim);
    if (s->window)
        snprintf(window, sizeof window, " window=%d", s->window);
    snprintf(text, cap, "rows=%d at=%d heads=%d/%d dim=%d%s%s%s", s->tokens, s->start, s->a, s->b,
             s->c, out, window, s->sinks ? " sinks" : "");
}

static bool prepare_store(struct bench_job *j)
{
    const struct bench_shape *s = j->shape;
    lay_out(j, s->a, s->b);
    j->pieces = 0; /* into blocks that are near, as those of the tokens before are */
    j->flops = 0;
    j->math = KERNELS_MATH_FLOAT;
    j->bytes = s->tokens * (8.0 * s->a * s->b + (double)kv_token_bytes(&j->layout));
    return true;
}

static void run_store(const struct bench_job *j, int part, int parts)
{
    const struct op_kv_store a = {
        .pool = bench_piece(j, 0), .layout = &j->layout, .k = j->x, .v = j->x, .rows = &j->rows};
    j->ops->kv_store(&a, part, parts);
}

static void describe_store(const struct bench_job *j, char *text, size_t cap)
{
    snprintf(text, cap, "rows=%d heads=%d dim=%d", j->shape->tokens, j->shape->a, j->shape->b);
}

const struct bench_op bench_attention = {.name = "attention",
                                         .forms = FORMS_OF_KV | FORMS_ROUNDED,
                                         .streams = true,
                                         .prepare = prepare_attention,
                                         .run = run_attention,
                                         .describe = describe_attention};
const struct bench_op bench_kv_store = {.name = "kv_store",
                                        .forms = FORMS_OF_KV,
                                        .prepare = prepare_store,
                                        .run = run_store,
                                        .describe = describe_store};
