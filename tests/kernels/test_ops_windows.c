/* Attention with windows, soft-caps, sinks, values of another size than keys, and latents: every
 * body against ref; and bit for bit the same whatever the chunks, blocks, parts and company, where
 * blocks that no window reaches any more are gone from the tables or hold NaN. */
#include "kernels/kernels_util.h"

enum { LENGTH = 150 }; /* more than two spans */

#if defined(BATON_TSAN)
#define SWEEP() cr_skip_test("one thread only")
#else
#define SWEEP() (void)0
#endif

struct shape {
    int heads, kv_heads, dim, value_dim, out_dim;
};

struct features {
    int window;
    float softcap;
    bool sinks;
    enum dtype dtype;
    bool rounds;
};

/* A sequence's queries, keys, values. */
struct sequence {
    struct shape shape;
    struct features with;
    const float *q, *k, *v, *sinks;
};

struct way {
    int block_tokens, chunk, parts;
    bool company; /* two other sequences in every batch */
    int gone;     /* entries before the window: 0 as they were, 1 none, 2 a block of NaN */
    bool stale;   /* what nobody wrote is numbers of before, in the pool, and NaN on the stack */
};

static int out_width(const struct shape *s)
{
    return s->heads * (s->out_dim ? s->out_dim : s->value_dim);
}

static void take_blocks_away(const struct way *w, struct kt_batch *b, int at, int window)
{
    int before = window > 0 && at >= window ? (at + 1 - window) / w->block_tokens : 0;
    for (int i = 0; w->gone && i < before; i++)
        b->tables[1][i] = w->gone == 1 ? -1 : 0; /* block 0 is nobody's */
}

/* The rows' inputs among those of the company, which are random. */
static float *rows_of(const float *of, int width, int at, int count, int before, int tokens)
{
    float *rows = kt_floats((size_t)(tokens * width), 91);
    memcpy(rows + before * width, of + at * width, (size_t)(count * width) * sizeof *rows);
    return rows;
}

struct chunk {
    const struct ops *ops;
    const struct sequence *q;
    const struct way *w;
    const struct kv_layout *layout;
    void *pool;
    float *out;
};

/* Leaves NaNs on the stack, where an op's state will be. */
static __attribute__((noinline)) void soil_stack(void)
{
    char frame[3 << 20];
    memset(frame, 0xff, sizeof frame);
    __asm__ volatile("" : : "r"(frame) : "memory");
}

static void feed(const struct chunk *c, int at, int count)
{
    const struct shape *s = &c->q->shape;
    struct kt_spec spec = {3, {0, at, 0}, {0, count, 0}};
    int before = c->w->company ? 2 : 0, width = out_width(s);
    if (c->w->company) {
        spec.count[0] = 2;
        spec.count[2] = 1;
    }
    struct kt_batch b = kt_batch_make(&spec, c->w->block_tokens, c->layout->blocks);
    int tokens = b.rows.tokens;
    float *q = rows_of(c->q->q, s->heads * s->dim, at, count, before, tokens);
    float *k = rows_of(c->q->k, s->kv_heads * s->dim, at, count, before, tokens);
    float *v = s->value_dim
                   ? rows_of(c->q->v, s->kv_heads * s->value_dim, at, count, before, tokens)
                   : NULL;
    float *out = malloc((size_t)(tokens * width) * sizeof *out);
    struct op_kv_store store = {
        .pool = c->pool, .layout = c->layout, .k = k, .v = v, .rows = &b.rows};
    struct op_attention attention = {.out = out,
                                     .q = q,
                                     .out_dim = s->out_dim,
                                     .pool = c->pool,
                                     .layout = c->layout,
                                     .heads = s->heads,
                                     .window = c->q->with.window,
                                     .scale = 1.5f / sqrtf((float)s->dim),
                                     .softcap = c->q->with.softcap,
                                     .sinks = c->q->sinks,
                                     .rows = &b.rows,
                                     .rounds = c->q->with.rounds};
    take_blocks_away(c->w, &b, at, c->q->with.window);
    for (int part = c->w->parts - 1; part >= 0; part--)
        c->ops->kv_store(&store, part, c->w->parts);
    for (int part = c->w->parts - 1; part >= 0; part--) {
        if (c->w->stale && at % 16 == 0)
            soil_stack();
        c->ops->attention(&attention, part, c->w->parts);
    }
    memcpy(c->out + at * width, out + before * width, (size_t)(count * width) * sizeof *out);
    free(out);
    free(v);
    free(k);
    free(q);
    kt_batch_free(&b);
}

static void compute(const struct ops *ops, const struct sequence *q, const struct way *w,
                    float *out)
{
    struct kv_layout l = {.layers = 1,
                          .kv_heads = q->shape.kv_heads,
                          .head_dim = q->shape.dim,
                          .value_dim = q->shape.value_dim,
                          .block_tokens = w->block_tokens,
                          .blocks = 3 * (LENGTH / w->block_tokens + 1) + 1,
                          .dtype = q->with.dtype};
    struct chunk c = {ops, q, w, &l, kt_pool_make(&l), out};
    for (size_t i = 0; w->stale && i < kv_pool_bytes(&l); i++)
        ((uint8_t *)c.pool)[i] = i % 2 ? (uint8_t)(i % 3 ? 0x3f : 0x80) : (uint8_t)(i * 37 % 5);
    for (int at = 0; at < LENGTH; at += w->chunk)
        feed(&c, at, LENGTH - at < w->chunk ? LENGTH - at : w->chunk);
    kt_pool_free(c.pool, &l);
}

static struct sequence sequence_make(const struct shape *s, const struct features *f)
{
    struct sequence q = {.shape = *s, .with = *f};
    q.q = kt_floats((size_t)(LENGTH * s->heads * s->dim), 8);
    q.k = kt_floats((size_t)(LENGTH * s->kv_heads * s->dim), 9);
    q.v = kt_floats((size_t)(LENGTH * s->kv_heads * (s->value_dim ? s->value_dim : 1)), 10);
    if (f->sinks)
        q.sinks = kt_floats((size_t)s->heads, 11);
    return q;
}

static void sequence_free(struct sequence *q)
{
    free((float *)q->q);
    free((float *)q->k);
    free((float *)q->v);
    free((float *)q->sinks);
}

static const struct shape shapes[] = {
    {6, 2, 20, 20, 0},   {4, 4, 64, 64, 0},   {3, 1, 12, 7, 0},    {5, 1, 33, 16, 0},
    {9, 1, 28, 0, 20},   {4, 1, 576, 0, 512}, {34, 1, 72, 0, 64},  {2, 1, 40, 0, 40},
    {8, 2, 256, 256, 0}, {2, 2, 24, 24, 24},  {3, 1, 700, 333, 0}, {2, 1, 192, 128, 0},
    {2, 1, 576, 0, 512}, {3, 1, 87, 29, 0},
};
#define N_SHAPES (sizeof shapes / sizeof shapes[0])
static const struct features features[] = {
    {0, 0, false, DTYPE_F32},
    {1, 0, false, DTYPE_BF16},
    {5, 2.5f, false, DTYPE_F32},
    {63, 0, true, DTYPE_F16},
    {64, 0, false, DTYPE_BF16},
    {65, 0.7f, true, DTYPE_F32},
    {100, 0, true, DTYPE_BF16},
    {128, 50, false, DTYPE_F16},
    {149, 0, true, DTYPE_F32},
    {150, 1, true, DTYPE_BF16},
    {1000, 0, true, DTYPE_F32},
    {0, 30, true, DTYPE_F16},
    {17, 0, true, DTYPE_F32},
    {0, 0, false, DTYPE_INT8},
    {65, 0, true, DTYPE_INT8},
    {5, 2.5f, false, DTYPE_FP8},
    {150, 0, true, DTYPE_FP8},
    {0, 0, true, DTYPE_INT4},
    {64, 0, false, DTYPE_INT4},
    {20, 0.7f, false, DTYPE_INT8},
    {0, 0, false, DTYPE_BF16, true},
    {65, 0.7f, true, DTYPE_BF16, true},
    {100, 0, true, DTYPE_BF16, true},
    {0, 0, true, DTYPE_F16, true},
    {65, 0.7f, false, DTYPE_INT8, true},
    {100, 0, true, DTYPE_FP8, true},
    {37, 0, false, DTYPE_INT4, true},
};
#define N_FEATURES (sizeof features / sizeof features[0])

static void name_case(char *out, size_t cap, const struct sequence *q)
{
    const struct shape *s = &q->shape;
    snprintf(out, cap, "heads %d/%d dim %d value %d out %d window %d cap %g%s %s%s", s->heads,
             s->kv_heads, s->dim, s->value_dim, s->out_dim, q->with.window, (double)q->with.softcap,
             q->with.sinks ? " sinks" : "", dtype_name(q->with.dtype),
             q->with.rounds ? " rounds" : "");
}

static bool f_rounds(const struct features *f, const struct ops *ops)
{
    return f->rounds && kt_rounds(ops);
}

Test(windows, against_ref, .timeout = 240)
{
    SWEEP();
    for (size_t s = 0; s < N_SHAPES; s++)
        for (size_t f = s % 2; f<N_FEATURES; f += shapes[s].dim> 256 ? 4 : 2) {
            struct sequence q = sequence_make(&shapes[s], &features[f]);
            size_t n = (size_t)(LENGTH * out_width(&shapes[s]));
            float *want = malloc(n * sizeof *want), *got = malloc(n * sizeof *got);
            char what[200], name[240];
            name_case(what, sizeof what, &q);
            compute(ops_ref(), &q, &(struct way){16, LENGTH, 1, false, 0}, want);
            for (int b = 1; ops_at(b); b++) {
                snprintf(name, sizeof name, "%s %s", ops_at(b)->name, what);
                compute(ops_at(b), &q, &(struct way){16, 31, 3, true, 2}, got);
                const bool rounds = f_rounds(&features[f], ops_at(b));
                kt_near(name, got, want, n,
                        rounds ? (struct kt_tolerance){4e-3, 4e-3}
                               : (struct kt_tolerance){3e-6, 2e-6});
            }
            free(got);
            free(want);
            sequence_free(&q);
        }
}

Test(windows, whatever_the_way, .timeout = 240)
{
    static const struct way ways[] = {
        {16, 1, 1, false, 1},      {16, 7, 1, true, 2},     {16, 64, 2, false, 1},
        {16, 65, 3, true, 2},      {1, LENGTH, 1, true, 0}, {1, 9, 2, false, 1},
        {3, 40, 5, true, 2},       {64, 5, 1, false, 2},    {100, 50, 2, true, 1},
        {256, LENGTH, 3, true, 0}, {7, 1, 2, true, 1},
    };
    SWEEP();
    for (int b = 1; ops_at(b); b++)
        for (size_t s = 0; s < N_SHAPES; s++)
            for (size_t f = 0; f < N_FEATURES; f++) {
                struct sequence q = sequence_make(&shapes[s], &features[f]);
                size_t n = (size_t)(LENGTH * out_width(&shapes[s]));
                float *want = malloc(n * sizeof *want), *got = malloc(n * sizeof *got);
                char what[200], name[280];
                name_case(what, sizeof what, &q);
                compute(ops_at(b), &q, &(struct way){16, LENGTH, 1, false, 0}, want);
                for (size_t w = (s + f) % 3; w < sizeof ways / sizeof ways[0]; w += 3) {
                    snprintf(name, sizeof name, "%s %s block %d chunk %d parts %d gone %d",
                             ops_at(b)->name, what, ways[w].block_tokens, ways[w].chunk,
                             ways[w].parts, ways[w].gone);
                    compute(ops_at(b), &q, &ways[w], got);
                    kt_same(name, got, want, n);
                }
                free(got);
                free(want);
                sequence_free(&q);
            }
}

/* Where bf16 is multiplied in tiles of 16 queries and 32 elements: chunks and heads that end at
 * their borders, against one row at a time. Of numbers so small and scores so far apart that
 * products and weights are no normal numbers, the same. */
Test(windows, borders_of_tiles, .timeout = 240)
{
    static const struct shape wide[] = {{1, 1, 64, 64, 0},
                                        {3, 1, 80, 80, 0},
                                        {8, 2, 96, 96, 0},
                                        {2, 2, 128, 128, 0},
                                        {5, 1, 576, 0, 512}};
    static const struct way ways[] = {{16, 15, 1, true, 0}, {5, 16, 2, false, 0},
                                      {48, 17, 1, true, 2}, {32, 32, 3, false, 1},
                                      {16, 33, 1, true, 2}, {64, LENGTH, 1, false, 0}};
    SWEEP();
    for (int b = 1; ops_at(b); b++)
        for (size_t s = 0; s < sizeof wide / sizeof wide[0] && kt_rounds(ops_at(b)); s++)
            for (int small = 0; small < 2; small++) {
                struct features f = {s % 2 ? 37 : 0, 0, s % 2, DTYPE_BF16, true};
                struct sequence q = sequence_make(&wide[s], &f);
                size_t n = (size_t)(LENGTH * out_width(&wide[s]));
                float *want = malloc(n * sizeof *want), *got = malloc(n * sizeof *got);
                char name[200];
                for (int i = 0; i < LENGTH * wide[s].heads * wide[s].dim && small; i++)
                    ((float *)q.q)[i] *= 90;
                for (int i = 0; i < LENGTH * wide[s].kv_heads * wide[s].value_dim && small; i += 2)
                    ((float *)q.v)[i] *= 0x1p-124f;
                compute(ops_at(b), &q, &(struct way){16, 1, 1, false, 0}, want);
                for (size_t w = 0; w < sizeof ways / sizeof ways[0]; w++) {
                    snprintf(name, sizeof name, "%s dim %d block %d chunk %d%s", ops_at(b)->name,
                             wide[s].dim, ways[w].block_tokens, ways[w].chunk,
                             small ? " small" : "");
                    compute(ops_at(b), &q, &ways[w], got);
                    kt_same(name, got, want, n);
                }
                free(got);
                free(want);
                sequence_free(&q);
            }
}

/* Bodies with tiles, emulated ones too, agree to the bit: of few pairs, and of many. */
Test(windows, tiles_agree_across_bodies, .timeout = 120)
{
    static const struct shape wide[] = {
        {4, 1, 64, 64, 0}, {7, 1, 96, 80, 0}, {16, 2, 128, 128, 0}, {5, 1, 72, 0, 64}};
    static const int chunks[] = {1, 2, 40};
    static const enum dtype types[] = {DTYPE_BF16, DTYPE_F16, DTYPE_FP8, DTYPE_INT8, DTYPE_INT4};
    int bodies = 0;
    for (int b = 0; ops_at(b); b++)
        bodies += ops_at(b)->tiles;
    if (bodies < 2)
        cr_skip_test("only %d body has tiles here", bodies);
    for (size_t i = 0; i < 24; i++) {
        const struct way w = {16, chunks[i % 3], 2, false, 0, false};
        struct features f = {i % 2 ? 70 : 0, i % 7 ? 0 : 2.5f, i % 2, types[i % 5], true};
        struct sequence q = sequence_make(&wide[i / 6], &f);
        const size_t n = (size_t)(LENGTH * out_width(&wide[i / 6]));
        float *first = NULL;
        for (int b = 1; ops_at(b); b++) {
            if (!ops_at(b)->tiles)
                continue;
            float *out = malloc(n * sizeof *out);
            compute(ops_at(b), &q, &w, out);
            if (first)
                kt_same(ops_at(b)->name, out, first, n);
            free(first);
            first = out;
        }
        free(first);
        sequence_free(&q);
    }
}

/* What lies in a block behind a sequence's end, or on the stack, NaN or numbers of before, does not
 * show. */
Test(windows, what_nobody_wrote, .timeout = 120)
{
    static const struct shape of[] = {
        {4, 1, 64, 64, 0}, {7, 1, 96, 80, 0}, {3, 1, 72, 0, 64}, {3, 1, 33, 29, 0}};
    enum { SHAPES = sizeof of / sizeof of[0] };
    for (int b = 0; ops_at(b); b++)
        for (size_t i = 0; i < 6 * SHAPES; i++) {
            const struct shape *s = &of[i % SHAPES];
            const size_t kind = i / SHAPES / 2;
            struct features f = {i / SHAPES % 2 ? 37 : 0, 0, false, kind ? DTYPE_BF16 : DTYPE_F32,
                                 kind == 2};
            struct sequence q = sequence_make(s, &f);
            const size_t n = (size_t)(LENGTH * out_width(s));
            float *clean = malloc(n * sizeof *clean), *stale = malloc(n * sizeof *stale);
            for (int chunk = 1; chunk <= 4; chunk *= 2) {
                compute(ops_at(b), &q, &(struct way){32, chunk, 1, false, 0, false}, clean);
                compute(ops_at(b), &q, &(struct way){32, chunk, 1, false, 0, true}, stale);
                kt_same(ops_at(b)->name, stale, clean, n);
            }
            free(stale);
            free(clean);
            sequence_free(&q);
        }
}

struct sickness {
    int part, element; /* of a key, or a value */
    float is;
};

/* One element of a key or value is sick: the rows whose window reaches it, and no other, say what
 * is no number; of a value, in that element alone. */
static void check_sick(const struct ops *ops, struct sequence *q, const struct way *w,
                       struct sickness sick)
{
    enum { SICK = 70 };
    const struct shape *s = &q->shape;
    const int width = out_width(s), window = q->with.window;
    const int dim = sick.part ? s->value_dim : s->dim, out_dim = width / s->heads;
    const size_t n = (size_t)(LENGTH * width);
    float *clean = malloc(n * sizeof *clean), *dirty = malloc(n * sizeof *dirty);
    float *at = (float *)(sick.part ? q->v : q->k) + SICK * dim + sick.element;
    const float well = *at;
    compute(ops, q, w, clean);
    *at = sick.is;
    compute(ops, q, w, dirty);
    *at = well;
    for (int r = 0; r < LENGTH; r++) {
        const bool sees = r >= SICK && r < SICK + window;
        float *row = dirty + r * width;
        for (int i = 0; i < width && sees; i++)
            if (sick.part == 0 || i % out_dim == sick.element) {
                cr_assert(!isfinite(row[i]), "%s row %d element %d, chunks of %d", ops->name, r, i,
                          w->chunk);
                row[i] = clean[r * width + i];
            }
        kt_same(ops->name, row, clean + r * width, (size_t)width);
    }
    free(dirty);
    free(clean);
}

/* In chunks of many rows, and of so few that tiles are narrow. */
Test(windows, keep_nan_to_those_who_see_it, .timeout = 120)
{
    static const struct shape of[] = {{2, 1, 24, 24, 0},
                                      {9, 1, 28, 0, 20},
                                      {8, 1, 24, 24, 0},
                                      {1, 1, 40, 40, 0},
                                      {4, 1, 96, 96, 0}};
    static const int chunks[] = {33, 4, 2, 1};
    enum { SHAPES = sizeof of / sizeof of[0] };
    for (int b = 0; ops_at(b); b++)
        for (int i = 0; i < 3 * SHAPES; i++) {
            const struct shape *s = &of[i % SHAPES];
            struct features f = {20, 0, true, i < SHAPES ? DTYPE_F32 : DTYPE_BF16, i >= 2 * SHAPES};
            struct sequence q = sequence_make(s, &f);
            for (size_t c = 0; c < sizeof chunks / sizeof chunks[0]; c++) {
                const struct way w = {16, chunks[c], 2, false, 0, false};
                check_sick(ops_at(b), &q, &w, (struct sickness){0, c % 2 ? 2 : 3, NAN});
                for (int e = 2; e < s->value_dim; e += e == 2 ? 1 : 63) {
                    check_sick(ops_at(b), &q, &w, (struct sickness){1, e, NAN});
                    check_sick(ops_at(b), &q, &w,
                               (struct sickness){1, e, e % 2 ? INFINITY : -INFINITY});
                }
            }
            sequence_free(&q);
        }
}
