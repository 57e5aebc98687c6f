/* The benchmark runs every op on every body and its figures are sane; how fast anything is is not
 * tested here. */
#include <criterion/criterion.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/bench.h"
#include "kernels/ops.h"

Test(bench, every_op_on_every_body, .timeout = 240)
{
    static const char *const ops[] = {"embed",    "rmsnorm",   "gemm", "rope",
                                      "kv_store", "attention", "glu",  "quantize"};
    struct kernels_bench *b = malloc(sizeof *b);
    struct team *team = team_create(2, false, false);
    struct error err;
    cr_assert_eq(kernels_bench_run(&(struct kernels_bench_args){team, true}, b, &err), ST_OK);
    cr_assert(b->limit.gflops > 0 && b->limit.gbytes_per_second > 0);
    for (size_t o = 0; o < sizeof ops / sizeof ops[0]; o++)
        for (int body = 0; ops_at(body); body++) {
            size_t found = 0;
            for (size_t i = 0; i < b->n; i++)
                found += strcmp(b->rows[i].op, ops[o]) == 0 &&
                         strcmp(b->rows[i].backend, ops_at(body)->name) == 0;
            cr_assert_gt(found, 0, "%s on %s", ops[o], ops_at(body)->name);
        }
    for (size_t i = 0; i < b->n; i++) {
        const struct kernels_bench_row *r = &b->rows[i];
        cr_assert(r->seconds > 0 && isfinite(r->achieved) && r->achieved > 0, "%s %s", r->op,
                  r->shape);
        cr_assert(fabs(r->fraction - r->achieved / r->limit) < 1e-9);
        cr_log_info("%-9s %-8s %-36s %-4s %10.1f us %8.2f of %7.2f %-7s %5.1f %%", r->op,
                    r->backend, r->shape, r->dtype, r->seconds * 1e6, r->achieved, r->limit,
                    r->unit, r->fraction * 100);
    }
    team_destroy(team);
    free(b);
}
