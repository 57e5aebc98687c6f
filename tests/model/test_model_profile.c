/* The profile of forwards: it counts what is there, its times are within those of the forward, and
 * nothing that is computed hangs on it. */
#include <criterion/criterion.h>

#include <stdlib.h>
#include <string.h>

#include "model/profile.h"
#include "tests/model/model_rig.h"

#define TINY BATON_SOURCE_DIR "/models/tiny"
#define THREADS 2
#define N 12

static const int32_t ids[N] = {1, 5, 9, 2, 7, 3, 8, 4, 6, 11, 10, 12};

static struct rig *open_rig(const char *dir)
{
    const struct ops *ops;
    cr_assert_eq(ops_cpu("auto", &ops, NULL), ST_OK);
    return rig_open(
        &(struct rig_args){dir, ops, THREADS, DTYPE_F32, 16, MODEL_WEIGHTS_PACKED, NULL});
}

/* A prompt, then a token. */
static void run(struct rig *r, float *logits)
{
    struct sequence s;
    rig_begin(r, &s, ids);
    rig_step(r, &(struct feed){&s, N - 1, WANT_LAST}, 1, logits);
    rig_step(r, &(struct feed){&s, 1, WANT_LAST}, 1, logits + r->vocab);
}

static int64_t total_ns(const struct model_profile *p)
{
    int64_t sum = 0;
    for (int k = 0; k < PROFILE_KINDS; k++) {
        cr_assert_geq(p->by[k].ns, 0);
        sum += p->by[k].ns;
    }
    return sum;
}

/* Runs with and without; what was seen is in *out. */
static void check(const char *dir, struct model_profile *out)
{
    struct error err = {0};
    struct rig *r = open_rig(dir);
    const size_t bytes = 2 * (size_t)r->vocab * sizeof(float);
    float *off = malloc(bytes), *on = malloc(bytes);
    run(r, off);
    model_profile_read(r->model, out);
    cr_assert(out->forwards == 0 && out->members == 0 && total_ns(out) == 0);
    for (int round = 0; round < 2; round++) { /* the second start begins anew */
        cr_assert_eq(model_profile_start(r->model, &err), ST_OK);
        run(r, on);
        cr_assert_arr_eq(off, on, bytes);
        model_profile_read(r->model, out);
        cr_assert_eq(out->members, THREADS);
        cr_assert_eq(out->forwards, 2);
        cr_assert(out->forward_ns > 0 && total_ns(out) <= out->forward_ns * THREADS);
    }
    model_profile_stop(r->model);
    run(r, on);
    cr_assert_arr_eq(off, on, bytes);
    free(off);
    free(on);
    rig_close(r);
}

static int64_t calls(const struct model_profile *p, enum profile_kind kind)
{
    return p->by[kind].calls / THREADS;
}

/* Of gemms: which member takes how many is its own affair. */
static int64_t pieces(const struct model_profile *p, enum profile_kind kind)
{
    return p->by[kind].calls;
}

Test(profile, every_op_of_a_dense_model)
{
    const int layers = 5, forwards = 2;
    struct model_profile p;
    check(TINY, &p);
    cr_assert_eq(calls(&p, PROFILE_EMBED), forwards);
    /* in strips, by who has rows */
    cr_assert_geq(pieces(&p, PROFILE_NORM), forwards * (2 * layers + 1));
    cr_assert_geq(pieces(&p, PROFILE_QKV), forwards * 3 * layers);
    /* of the prompt's last layer keys are rotated for all rows, and queries for one */
    cr_assert_eq(calls(&p, PROFILE_ROPE), forwards * layers + 1);
    cr_assert_eq(calls(&p, PROFILE_KV_STORE), forwards * layers);
    cr_assert_eq(calls(&p, PROFILE_ATTENTION), forwards * layers);
    cr_assert_geq(pieces(&p, PROFILE_ATTENTION_OUT), forwards * layers);
    cr_assert_geq(pieces(&p, PROFILE_GATE_UP), forwards * 2 * layers);
    cr_assert_eq(calls(&p, PROFILE_ACTIVATION), forwards * layers);
    cr_assert_geq(pieces(&p, PROFILE_DOWN), forwards * layers);
    cr_assert_geq(pieces(&p, PROFILE_HEAD), forwards);
    cr_assert_gt(calls(&p, PROFILE_BARRIER), forwards * 5 * layers);
    cr_assert_eq(
        p.by[PROFILE_EXPERTS].calls + p.by[PROFILE_ROUTE].calls + p.by[PROFILE_ABSORB].calls, 0);
}

Test(profile, latents_and_experts)
{
    struct model_profile p;
    check(rig_golden_path("deepseek-v3"), &p);
    cr_assert_gt(p.by[PROFILE_ABSORB].calls, 0);
    cr_assert_gt(p.by[PROFILE_EXPERTS].calls, 0);
    cr_assert_gt(p.by[PROFILE_ROUTE].calls, 0);
    cr_assert_gt(p.by[PROFILE_QKV].calls, 0);
    cr_assert_gt(p.by[PROFILE_DOWN].calls, 0); /* dense layers, and experts of every token */
    check(rig_golden_path("jetmoe"), &p);
    cr_assert_gt(p.by[PROFILE_EXPERTS].calls, 0);
    cr_assert_gt(p.by[PROFILE_ROUTE].calls, 0);
    cr_assert_eq(p.by[PROFILE_GATE_UP].calls, 0);
}

Test(profile, every_kind_has_a_name)
{
    for (int k = 0; k < PROFILE_KINDS; k++)
        for (int i = 0; i <= k; i++)
            cr_assert_eq(strcmp(profile_kind_name((enum profile_kind)i),
                                profile_kind_name((enum profile_kind)k)) == 0,
                         i == k);
}
