/* The benchmark runs every op on every body, its figures are sane, and what it leaves out it lists;
 * how fast anything is is not tested here. */
#include <criterion/criterion.h>
#include <math.h>
#include <string.h>

#include "kernels/bench.h"
#include "kernels/logits.h"
#include "kernels/ops.h"

static const char *const names[] = {
    "gemm",    "gated",       "moe",         "attention",    "embed",   "rmsnorm",
    "rope",    "glu",         "quantize",    "round",        "route",   "combine",
    "softcap", "logits_peak", "logits_skip", "logits_weigh", "kv_store"};
#define NAMES (sizeof names / sizeof names[0])

static struct kernels_bench run(const char *op, const char *backend)
{
    struct kernels_bench b;
    struct team *team = team_create(2, false, false);
    struct error err = {0};
    const struct kernels_bench_args args = {
        .team = team, .quick = true, .op = op, .backend = backend};
    cr_assert_eq(kernels_bench_run(&args, &b, &err), ST_OK, "%s", err.text);
    team_destroy(team);
    return b;
}

static bool is_of(const struct kernels_bench_row *r, const char *op, const char *backend)
{
    return strcmp(r->op, op) == 0 && strcmp(r->backend, backend) == 0;
}

static size_t count(const struct kernels_bench_rows *rows, const char *op, const char *backend)
{
    size_t n = 0;
    for (size_t i = 0; i < rows->n; i++)
        n += is_of(&rows->row[i], op, backend);
    return n;
}

/* Whether some row has this dtype and a shape with these words in it. */
static bool has(const struct kernels_bench_rows *rows, const char *dtype, const char *words)
{
    for (size_t i = 0; i < rows->n; i++)
        if (strcmp(rows->row[i].dtype, dtype) == 0 && strstr(rows->row[i].shape, words))
            return true;
    return false;
}

static void check_row(const struct kernels_bench_row *r)
{
    cr_assert(r->seconds > 0 && isfinite(r->achieved) && r->achieved > 0, "%s %s", r->op, r->shape);
    cr_assert(fabs(r->fraction - r->achieved / r->limit) < 1e-9);
    cr_log_info("%-9s %-8s %-36s %-4s %10.1f us %8.2f of %7.2f %-7s %5.1f %%", r->op, r->backend,
                r->shape, r->dtype, r->seconds * 1e6, r->achieved, r->limit, r->unit,
                r->fraction * 100);
}

/* Nothing is timed twice, or timed and left out. */
static void check_once(const struct kernels_bench *b)
{
    const struct kernels_bench_rows *of[] = {&b->timed, &b->left_out};
    for (size_t i = 0; i < b->timed.n; i++)
        for (int k = 0; k < 2; k++)
            for (size_t o = k == 0 ? i + 1 : 0; o < of[k]->n; o++) {
                const struct kernels_bench_row *x = &b->timed.row[i], *y = &of[k]->row[o];
                cr_assert_not(is_of(y, x->op, x->backend) && strcmp(x->shape, y->shape) == 0 &&
                                  strcmp(x->dtype, y->dtype) == 0,
                              "%s %s %s %s", x->op, x->backend, x->shape, x->dtype);
            }
}

static bool has_op(const struct ops *o, const char *op)
{
    return (strcmp(op, "round") != 0 || o->round) && (strcmp(op, "gated") != 0 || o->gates);
}

Test(bench, every_op_on_every_body, .timeout = 240)
{
    struct kernels_bench b = run(NULL, NULL);
    cr_assert(b.limit.gflops > 0 && b.limit.gbytes_per_second > 0);
    cr_assert(b.limit.gflops >= b.before.gflops && b.limit.gflops >= b.after.gflops);
    cr_assert(b.before.int8_gops > 0 && b.after.int8_gops > 0);
    for (size_t o = 0; o < NAMES; o++) {
        cr_assert_str_eq(kernels_bench_op((int)o), names[o]);
        for (int body = 0; ops_at(body) && strncmp(names[o], "logits_", 7) != 0; body++)
            cr_assert_eq(count(&b.timed, names[o], ops_at(body)->name) > 0,
                         has_op(ops_at(body), names[o]), "%s on %s", names[o], ops_at(body)->name);
        for (int body = 0; logits_body_at(body) && strncmp(names[o], "logits_", 7) == 0; body++)
            cr_assert_eq(count(&b.timed, names[o], logits_body_at(body)->name), 1);
    }
    cr_assert_null(kernels_bench_op(NAMES));
    for (size_t i = 0; i < b.timed.n; i++)
        check_row(&b.timed.row[i]);
    check_once(&b);
    cr_assert(has(&b.timed, "fp32", "groups=8") && has(&b.timed, "bf16", "window=128 sinks"));
    cr_assert(has(&b.timed, "bf16", "out=512") && has(&b.timed, "int4", "at=255"));
    for (int body = 0; ops_at(body); body++) /* KV as tiles read it */
        cr_assert(!ops_at(body)->tiles || has(&b.timed, "int4r", "at=255"));
    kernels_bench_fini(&b);
}

/* ref takes hundreds of times as long as what is fast: it is not waited for, but not forgotten. */
Test(bench, what_takes_long_is_listed, .timeout = 240)
{
    struct kernels_bench all = run("gemm", "ref");
    size_t small = 0;
    for (size_t i = 0; i < all.timed.n; i++)
        small += strcmp(all.timed.row[i].shape, "M=1 N=512 K=512") == 0;
    cr_assert_gt(small, 5); /* a form each */
    cr_assert_eq(all.timed.n + all.left_out.n, 5 * small);
    cr_assert(has(&all.left_out, "fp32", "M=64 N=2048") && has(&all.left_out, "q4", "M=64 N=2048"));
    for (size_t i = 0; i < all.left_out.n; i++) {
        cr_assert_gt(all.left_out.row[i].seconds, all.call_seconds_max);
        cr_assert_str_eq(all.left_out.row[i].backend, "ref");
    }
    check_once(&all);
    kernels_bench_fini(&all);
}

/* The operations and bytes of a mixture: of its pairs, and of the experts that were chosen. */
Test(bench, mixtures, .timeout = 240)
{
    const struct ops *best;
    cr_assert_eq(ops_cpu("auto", &best, NULL), ST_OK);
    struct kernels_bench b = run("moe", "best");
    const char *forms[] = {"bf16", "q8", "q4", "q8w", "wide8", "wide4", "bf16r"};
    const enum kernels_math wide = best->round ? KERNELS_MATH_BF16 : KERNELS_MATH_FLOAT;
    for (size_t f = 0; f < 6 + (best->round != NULL); f++)
        cr_assert(has(&b.timed, forms[f], "M=1 N=128 K=256 experts=8 top=2"), "%s", forms[f]);
    for (size_t i = 0; i < b.timed.n; i++) {
        const struct kernels_bench_row *r = &b.timed.row[i];
        cr_assert_str_eq(r->backend, best->name);
        if (!strstr(r->shape, "M=1 "))
            continue;
        cr_assert_eq(r->flops, 2.0 * 3 * 2 * 128 * 256);
        cr_assert_eq(r->math, r->dtype[0] == 'q'               ? KERNELS_MATH_BYTES
                              : strcmp(r->dtype, "bf16r") == 0 ? KERNELS_MATH_BF16
                              : r->dtype[0] == 'w'             ? wide
                                                               : KERNELS_MATH_FLOAT);
        if (strncmp(r->dtype, "bf16", 4) == 0)
            cr_assert_eq(r->bytes, 2.0 * 3 * 2 * 128 * 256 + 8 * 256);
        cr_assert(r->streams);
    }
    kernels_bench_fini(&b);
}

Test(bench, names_that_are_none, .timeout = 60)
{
    struct kernels_bench b;
    struct error err = {0};
    struct team *team = team_create(1, false, false);
    struct kernels_bench_args args = {.team = team, .quick = true, .op = "gem"};
    cr_assert_eq(kernels_bench_run(&args, &b, &err), ST_INVALID);
    cr_assert(strstr(err.text, "gem:") && strstr(err.text, "softcap"), "%s", err.text);
    args.op = "softcap", args.backend = "cray";
    cr_assert_eq(kernels_bench_run(&args, &b, &err), ST_INVALID);
    cr_assert(strstr(err.text, "cray:") && strstr(err.text, "portable"), "%s", err.text);
    args.op = "gated", args.backend = "ref"; /* each exists, but not together */
    cr_assert_eq(kernels_bench_run(&args, &b, &err), ST_INVALID);
    cr_assert(strstr(err.text, "gated") && strstr(err.text, "ref"), "%s", err.text);
    team_destroy(team);
}
