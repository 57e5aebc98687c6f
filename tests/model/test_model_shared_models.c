/* Trained models that others made, against greedy texts computed in another way. */
#include <criterion/criterion.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/json.h"
#include "tests/model/model_rig.h"

#define MARGIN_MIN 0.01 /* below it another order of summation may choose otherwise */
#define IDS_MAX 512

static int32_t read_ids(const json *list, int32_t *out, int32_t at)
{
    for (size_t i = 0; i < json_count(list); i++) {
        cr_assert_lt(at, IDS_MAX);
        out[at++] = (int32_t)json_as_int(json_at(list, i), -1);
    }
    return at;
}

static void check_case(struct rig *r, const json *c, const char *what)
{
    int32_t ids[IDS_MAX];
    const int32_t prompt = read_ids(json_get(c, "prompt_ids"), ids, 0);
    const int32_t n = read_ids(json_get(c, "greedy_ids"), ids, prompt);
    const bool sure = json_as_number(json_get(c, "min_top1_top2_margin"), 0) >= MARGIN_MIN;
    const json *first = json_get(c, "first_logits");
    float *logits = calloc((size_t)r->vocab, sizeof *logits);
    struct sequence s;
    double worst = 0;

    r->blocks_used = 0;
    rig_begin(r, &s, ids);
    rig_step(r, &(struct feed){&s, prompt, WANT_LAST}, 1, logits);
    cr_assert_eq(json_count(first), (size_t)r->vocab);
    for (int32_t i = 0; i < r->vocab; i++)
        worst =
            fmax(worst, fabs((double)logits[i] - json_as_number(json_at(first, (size_t)i), NAN)));
    cr_assert(worst < 2e-3, "%s: first logits differ by %g", what, worst);
    for (int32_t i = prompt; sure && i < n; i++) {
        cr_assert_eq(rig_argmax(r, logits), ids[i], "%s: token %d", what, i - prompt);
        if (i + 1 < n)
            rig_step(r, &(struct feed){&s, 1, WANT_LAST}, 1, logits);
    }
    free(logits);
}

/* What a race detector can see it sees in one. */
#if defined(BATON_TSAN)
#define CASES_MAX 1
#else
#define CASES_MAX SIZE_MAX
#endif

static void check_model(const char *name)
{
    char file[1024], dir[1024], what[1200];
    snprintf(file, sizeof file, BATON_SOURCE_DIR "/../shared/data/models/goldens_%s.json", name);
    snprintf(dir, sizeof dir, BATON_SOURCE_DIR "/../shared/data/models/hf/%s", name);
    if (access(file, R_OK) != 0 || access(dir, R_OK) != 0)
        cr_skip_test("%s is not there", file);
    json *root = NULL;
    struct error err = {0};
    cr_assert_eq(json_read_file(file, 16 << 20, &root, &err), ST_OK, "%s", err.text);
    const json *cases = json_get(root, "cases");
    const struct ops *ops;
    cr_assert_gt(json_count(cases), 0);
    for (int i = 1; (ops = ops_at(i)); i++) { /* ref takes minutes here */
        struct rig *r = rig_open(&(struct rig_args){dir, ops, 2, DTYPE_F32, 16});
        for (size_t k = 0; k < json_count(cases) && k < CASES_MAX; k++) {
            snprintf(what, sizeof what, "%s %s case %zu", name, ops->name, k);
            check_case(r, json_at(cases, k), what);
        }
        rig_close(r);
    }
    json_free(root);
}

Test(shared_models, stories260K, .timeout = 240)
{
    check_model("stories260K");
}

Test(shared_models, babyllama, .timeout = 240)
{
    check_model("babyllama-tok105");
}
