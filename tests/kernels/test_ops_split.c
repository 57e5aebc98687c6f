/* Attention over so many positions that its parts share a row's: bit for bit what one part alone
 * computes, in whatever number they are, and near ref. */
#include "base/team.h"
#include "kernels/kernels_util.h"

enum { LENGTH = 1100, FROM = 1000 }; /* three stretches; rows that are compared */

struct shape {
    int heads, kv_heads, dim, value_dim, out_dim;
};

static const struct shape shapes[] = {{2, 1, 24, 24, 0}, {6, 2, 20, 12, 0}, {33, 1, 8, 0, 6}};

static const struct feature {
    int window;
    enum dtype dtype;
    bool rounds, sinks;
} features[] = {{0, DTYPE_BF16, false, false},
                {0, DTYPE_BF16, true, true},
                {700, DTYPE_F32, false, true},
                {514, DTYPE_INT8, false, false}};

struct sequence {
    struct kv_layout layout;
    void *pool;
    struct op_attention attention; /* of all rows, but for where they are */
    float *q, *sinks;
    int in, out; /* widths of a row */
};

static void sequence_make(const struct ops *ops, const struct shape *h, const struct feature *f,
                          int block_tokens, struct sequence *s)
{
    s->layout = (struct kv_layout){.layers = 1,
                                   .kv_heads = h->kv_heads,
                                   .head_dim = h->dim,
                                   .value_dim = h->value_dim,
                                   .block_tokens = block_tokens,
                                   .blocks = LENGTH / block_tokens + 1,
                                   .dtype = f->dtype};
    s->pool = kt_pool_make(&s->layout);
    s->in = h->heads * h->dim;
    s->out = h->heads * (h->out_dim ? h->out_dim : h->value_dim);
    s->q = kt_floats((size_t)(LENGTH * s->in), 3);
    s->sinks = kt_floats((size_t)h->heads, 4);
    s->attention = (struct op_attention){.out_dim = h->out_dim,
                                         .pool = s->pool,
                                         .layout = &s->layout,
                                         .heads = h->heads,
                                         .window = f->window,
                                         .scale = 1.5f / sqrtf((float)h->dim),
                                         .sinks = f->sinks ? s->sinks : NULL,
                                         .rounds = f->rounds};
    struct kt_spec all = {1, {0}, {LENGTH}};
    struct kt_batch b = kt_batch_make(&all, block_tokens, s->layout.blocks);
    float *k = kt_floats((size_t)(LENGTH * h->kv_heads * h->dim), 5);
    float *v = kt_floats((size_t)(LENGTH * h->kv_heads * h->dim), 6);
    ops->kv_store(
        &(struct op_kv_store){
            .pool = s->pool, .layout = &s->layout, .k = k, .v = v, .rows = &b.rows},
        0, 1);
    free(v);
    free(k);
    kt_batch_free(&b);
}

static void sequence_free(struct sequence *s)
{
    free(s->sinks);
    free(s->q);
    kt_pool_free(s->pool, &s->layout);
}

struct call {
    const struct ops *ops;
    struct op_attention a;
};

static void call(void *arg, int part, int parts)
{
    const struct call *c = arg;
    c->ops->attention(&c->a, part, parts);
}

/* Rows [at, end), or [at, LENGTH), as a batch: by `team`, or by `parts` one after the other, the
 * last first. */
struct way {
    int at, end, parts;
    struct team *team;
    void *scratch;
    size_t scratch_bytes;
    bool gone; /* table entries that no window reaches */
};

static float *compute(const struct ops *ops, const struct sequence *s, const struct way *w)
{
    const int rows = (w->end ? w->end : LENGTH) - w->at;
    struct kt_spec spec = {1, {w->at}, {rows}};
    struct kt_batch b = kt_batch_make(&spec, s->layout.block_tokens, s->layout.blocks);
    float *out = kt_floats((size_t)(rows * s->out), 7);
    const int before = s->attention.window > 0 ? w->at + 1 - s->attention.window : 0;
    for (int i = 0; w->gone && (i + 1) * s->layout.block_tokens <= before; i++)
        b.tables[0][i] = INT32_MAX; /* nothing is there */
    struct call c = {ops, s->attention};
    c.a.out = out;
    c.a.q = s->q + w->at * s->in;
    c.a.rows = &b.rows;
    c.a.scratch = w->scratch;
    c.a.scratch_bytes = w->scratch_bytes;
    if (w->team)
        team_run(w->team, call, &c);
    for (int part = w->parts - 1; part >= 0; part--)
        call(&c, part, w->parts);
    kt_batch_free(&b);
    return out;
}

#define UNTOUCHED 0x5a

/* Zeros to count in, and behind that what nobody wrote. */
static void scratch_clear(char *scratch, size_t bytes)
{
    memset(scratch, UNTOUCHED, bytes);
    memset(scratch, 0, OPS_ATTENTION_COUNTS);
}

static bool is_all(const char *at, size_t bytes, char value)
{
    for (size_t i = 0; i < bytes; i++)
        if (at[i] != value)
            return false;
    return true;
}

/* Counts are as they were, nothing is written behind the end, and stretches were left there where
 * several parts had too few rows for each. */
static void check_scratch(const char *what, const struct way *w, size_t bytes)
{
    const char *scratch = w->scratch;
    const bool shares = (w->team || w->parts > 2) && w->at >= LENGTH - 9;
    cr_assert(is_all(scratch, OPS_ATTENTION_COUNTS, 0), "%s: counts", what);
    cr_assert(is_all(scratch + w->scratch_bytes, bytes - w->scratch_bytes, UNTOUCHED),
              "%s: behind the end", what);
    cr_assert(!shares || !is_all(scratch + OPS_ATTENTION_COUNTS,
                                 w->scratch_bytes - OPS_ATTENTION_COUNTS, UNTOUCHED),
              "%s: nothing was shared out", what);
}

static void check(const struct ops *ops, size_t shape, size_t with, struct team *team)
{
    static const int ats[] = {LENGTH - 1, LENGTH - 3, LENGTH - 9, 1020};
    const size_t large = OPS_ATTENTION_COUNTS + ((size_t)4 << 20);
    void *scratch = malloc(large);
    struct sequence s;
    sequence_make(ops, &shapes[shape], &features[with], 16, &s);
    float *want = compute(ops, &s, &(struct way){.at = FROM, .parts = 1});
    float *truth = compute(ops_ref(), &s, &(struct way){.at = LENGTH - 9, .parts = 1});
    const bool rounded = features[with].rounds && kt_rounds(ops);
    kt_near(ops->name, want + (LENGTH - 9 - FROM) * s.out, truth, (size_t)(9 * s.out),
            rounded ? (struct kt_tolerance){4e-3, 4e-3} : (struct kt_tolerance){3e-6, 2e-6});
    for (size_t i = 0; i < sizeof ats / sizeof ats[0]; i++)
        for (int parts = 0; parts <= 7; parts += parts < 2 ? 1 : 5) {
            char what[128];
            struct way w = {ats[i],  0,
                            parts,   parts ? NULL : team,
                            scratch, parts == 2 ? OPS_ATTENTION_COUNTS + 4096 : large};
            snprintf(what, sizeof what, "%s shape %zu features %zu from %d, %d parts", ops->name,
                     shape, with, ats[i], parts);
            scratch_clear(scratch, large);
            float *got = compute(ops, &s, &w);
            check_scratch(what, &w, large);
            kt_same(what, got, want + (ats[i] - FROM) * s.out, (size_t)((LENGTH - ats[i]) * s.out));
            free(got);
        }
    free(truth);
    free(want);
    sequence_free(&s);
    free(scratch);
}

Test(split, whatever_the_parts, .timeout = 240)
{
    struct team *team = team_create(3, false, false);
    cr_assert_not_null(team);
    for (int b = 1; ops_at(b); b++)
        for (size_t shape = 0; shape < sizeof shapes / sizeof shapes[0]; shape++)
            for (size_t with = (shape + (size_t)b) % 2; with < sizeof features / sizeof features[0];
                 with += 2)
                check(ops_at(b), shape, with, team);
    team_destroy(team);
}

/* One element of a value is no number, or its first group is where those have scales. */
static void make_sick(struct sequence *s, int position)
{
    const struct kv_layout *l = &s->layout;
    const struct kt_spec all = {1, {0}, {LENGTH}};
    struct kt_batch b = kt_batch_make(&all, l->block_tokens, l->blocks);
    const int32_t block = b.rows.block_tables[0][position / l->block_tokens];
    const uint16_t nan = 0x7fc0;
    const size_t dim = (size_t)(l->value_dim ? l->value_dim : l->head_dim);
    const size_t at = kv_is_quantized(l->dtype) ? kv_scale_at(l->dtype, dim, 0) : 0;
    memcpy((char *)s->pool + at +
               kv_offset(l, 0, block, l->value_dim ? KV_VALUE : KV_KEY, l->kv_heads - 1,
                         position % l->block_tokens),
           &nan, sizeof nan);
    kt_batch_free(&b);
}

/* Rows that are compared, of so many that are computed at once. */
struct prompt {
    struct shape shape;
    int begin, end;
};

static const struct prompt prompts[] = {
    {{8, 2, 64, 64, 0}, 400, LENGTH},  {{2, 2, 128, 128, 0}, 400, LENGTH},
    {{16, 1, 40, 40, 0}, 480, LENGTH}, {{5, 1, 96, 0, 80}, 400, LENGTH},
    {{1, 1, 64, 64, 0}, 400, LENGTH},  {{20, 1, 48, 24, 0}, 500, LENGTH},
    {{24, 2, 64, 64, 0}, 900, LENGTH}, {{3, 1, 200, 200, 0}, 500, LENGTH},
    {{130, 1, 72, 0, 64}, 1020, 1030}, /* more than a tile holds: in several of different widths */
};

/* Rows [at, end) by themselves, in parts that share stretches or not, where blocks that no window
 * reaches are nowhere. */
static float *compute_few(const struct ops *ops, const struct sequence *s, int at, int end)
{
    const size_t bytes = OPS_ATTENTION_COUNTS + ((size_t)2 << 20);
    void *scratch = at % 2 ? aligned_alloc(64, bytes) : NULL;
    const struct way w = {.at = at,
                          .end = end,
                          .parts = 1 + at % 3,
                          .scratch = scratch,
                          .scratch_bytes = scratch ? bytes : 0,
                          .gone = true};
    if (scratch)
        memset(scratch, 0, bytes);
    float *out = compute(ops, s, &w);
    free(scratch);
    return out;
}

/* They are what they are in `all`, and near ref where every value is a number. */
static void check_few(const struct ops *ops, const struct sequence *s, const struct prompt *p,
                      const float *all, bool sick)
{
    static const int rows[] = {400, 401,  511,  512,  513,  575,  640,  767,
                               900, 1021, 1022, 1023, 1024, 1025, 1090, 1091};
    for (size_t r = 0; r < sizeof rows / sizeof rows[0]; r++) {
        const int at = rows[r], end = at + (r % 4 == 3 ? 9 : r % 4 == 2 ? 3 : 1);
        char what[160];
        if (at < p->begin || end > p->end)
            continue;
        const size_t n = (size_t)((end - at) * s->out);
        float *few = compute_few(ops, s, at, end);
        snprintf(what, sizeof what, "%s heads %d/%d dim %d window %d rows %d to %d", ops->name,
                 p->shape.heads, p->shape.kv_heads, p->shape.dim, s->attention.window, at, end);
        kt_same(what, few, all + (at - p->begin) * s->out, n);
        if (!sick && r % 5 == 0) {
            float *truth = compute_few(ops_ref(), s, at, end);
            kt_near(what, few, truth, n, (struct kt_tolerance){4e-3, 4e-3});
            free(truth);
        }
        free(few);
    }
}

/* Many rows of a prompt at once, in tiles that reach over several stretches, are what each is alone
 * and in a few: where ends and borders of stretches are, in every way that tiles are computed and
 * of every type that they take, a value that is no number among them, and in real tiles as in
 * emulated ones. */
Test(split, rows_of_many_stretches, .timeout = 240)
{
    enum { PROMPTS = sizeof prompts / sizeof prompts[0] };
    static const int windows[] = {0, 90, 700, 530};
    static const enum dtype types[] = {DTYPE_F16, DTYPE_FP8, DTYPE_INT8, DTYPE_INT4};
    for (int i = 0; i < 5 * PROMPTS; i++) {
        const struct prompt *p = &prompts[i % PROMPTS];
        const int turn = i / PROMPTS; /* bf16 twice, all others, fp16, all others */
        const enum dtype type = turn < 2    ? DTYPE_BF16
                                : turn == 3 ? DTYPE_F16
                                            : types[(i + turn) % 4];
        const struct feature f = {windows[i % 4], type, true, i % 2};
        const bool sick = turn != 0 && turn != 2;
        const struct way whole = {.at = p->begin, .end = p->end, .parts = 2};
        float *first = NULL;
        for (int b = 1; ops_at(b); b++) {
            const struct ops *ops = ops_at(b);
            struct sequence s;
            if (!kt_rounds(ops) || (type != DTYPE_BF16 && !ops->tiles))
                continue;
            sequence_make(ops, &p->shape, &f, i % 4 == 3 ? 20 : 32, &s);
            if (sick)
                make_sick(&s, i % 2 ? 600 : 1021);
            float *all = compute(ops, &s, &whole);
            check_few(ops, &s, p, all, sick);
            if (first && ops->tiles)
                kt_same(ops->name, all, first, (size_t)((p->end - p->begin) * s.out));
            sequence_free(&s);
            if (ops->tiles && !first)
                first = all;
            else
                free(all);
        }
        free(first);
    }
}

Test(split, no_rows)
{
    const size_t bytes = OPS_ATTENTION_COUNTS + 4096;
    void *scratch = calloc(1, bytes);
    for (int b = 1; ops_at(b); b++) {
        struct sequence s;
        sequence_make(ops_at(b), &shapes[0], &features[0], 16, &s);
        float *none = compute(ops_at(b), &s, &(struct way){LENGTH, 0, 2, NULL, scratch, bytes});
        free(none);
        sequence_free(&s);
    }
    free(scratch);
}
