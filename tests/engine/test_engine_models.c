/* Real models: a split into prefill and decode, batches, chunks, block sizes, prefix hits and the
 * giving back of what no window reaches change no token and no log-probability, bit for bit; and
 * the tokens of trained ones are the published ones. */
#include <stdio.h>
#include <unistd.h>

#include "base/json.h"
#include "split_rig.h"

#define NEW_TOKENS 48
#define MARGIN_MIN 0.01 /* below it another order of summation may choose otherwise */

static void check_published(const struct set *s, const json *root)
{
    for (int32_t i = 0; i < s->n; i++) {
        const json *one = json_at(json_get(root, "cases"), (size_t)i);
        if (json_as_number(json_get(one, "min_top1_top2_margin"), 0) < MARGIN_MIN)
            continue;
        const json *ids = json_get(one, "greedy_ids"), *logprobs = json_get(one, "logprobs");
        const struct ask *a = s->prompts[i];
        cr_assert(a->n_said[0] == NEW_TOKENS || a->n_said[0] == (int32_t)json_count(ids));
        for (int32_t t = 0; t < a->n_said[0]; t++) {
            cr_assert_eq(a->said[0][t], json_as_int(json_at(ids, (size_t)t), -1),
                         "prompt %d token %d", i, t);
            cr_assert_float_eq((double)a->logprob[0][t],
                               json_as_number(json_at(logprobs, (size_t)t), 9), 1e-3);
        }
    }
}

/* The published cases, which the caller frees. */
static json *set_open_published(struct set *s, const char *name)
{
    char file[1024], dir[1024];
    snprintf(file, sizeof file, BATON_SOURCE_DIR "/../shared/data/models/goldens_%s.json", name);
    snprintf(dir, sizeof dir, BATON_SOURCE_DIR "/../shared/data/models/hf/%s", name);
    if (access(file, R_OK) != 0 || access(dir, R_OK) != 0)
        cr_skip_test("%s is not there", file);
    struct error err = {0};
    json *root = NULL;
    cr_assert_eq(json_read_file(file, 16 << 20, &root, &err), ST_OK, "%s", err.text);
    set_load(s, dir);
    const json *cases = json_get(root, "cases");
    cr_assert_geq(json_count(cases), 10);
    for (size_t i = 0; i < json_count(cases); i++) {
        const json *ids = json_get(json_at(cases, i), "prompt_ids");
        struct ask *a = calloc(1, sizeof *a);
        a->prompt.n = (uint32_t)json_count(ids);
        for (uint32_t t = 0; t < a->prompt.n; t++)
            a->prompt_ids[t] = (int32_t)json_as_int(json_at(ids, t), -1);
        set_add(s, a, NEW_TOKENS);
    }
    return root;
}

/* What a race detector can see it sees in one dtype and two ways. */
#if defined(BATON_TSAN)
enum { TYPES = 1, WAYS = 2 };
#else
enum { TYPES = DTYPE_KV_COUNT, WAYS = 3 };
#endif

static void check_model(const char *name)
{
    struct set s;
    char what[128];
    json *root = set_open_published(&s, name);
    for (int i = 0; i < TYPES; i++) {
        const enum dtype type = (enum dtype)i;
        alone(&s, (struct rig_options){.chunk = 512, .dtype = type, .slack = KEEP_ALL});
        if (type == DTYPE_F32)
            check_published(&s, root);
        struct rig_options ways[] = {
            {.block_tokens = 16, .max_batch = 16, .chunk = 64, .dtype = type},
            {.block_tokens = 5, .max_batch = 3, .chunk = 7, .dtype = type},
            {.block_tokens = 1, .max_batch = 11, .chunk = 1, .dtype = type, .no_prefix = true},
        };
        for (int w = 0; w < WAYS; w++) {
            snprintf(what, sizeof what, "%s %s way %d", name, dtype_name(type), w);
            together(&s, ways[w], what);
        }
        snprintf(what, sizeof what, "%s %s split", name, dtype_name(type));
        split(&s, (struct rig_options){.dtype = type, .slack = 40}, 16, what);
    }
    json_free(root);
    set_close(&s);
}

Test(models, stories260K, .timeout = 240)
{
    check_model("stories260K");
}

Test(models, babyllama, .timeout = 240)
{
    check_model("babyllama-tok105");
}

/* A small model of random weights whose layers slide, or some of them: prompts with common
 * beginnings, most of them longer than any window. */
static void check_sliding(const char *name, enum dtype type)
{
    struct set s;
    char dir[1024];
    snprintf(dir, sizeof dir, BATON_SOURCE_DIR "/tests/model/goldens/%s", name);
    set_load(&s, dir);
    struct rng rng = rng_seed(3);
    for (int32_t i = 0; i < 8; i++) {
        struct ask *a = calloc(1, sizeof *a);
        a->prompt.n = 5 + (uint32_t)i * 19;
        for (uint32_t t = 0; t < a->prompt.n; t++)
            a->prompt_ids[t] = i > 1 && t < 40 * (uint32_t)(i % 3)
                                   ? s.prompts[i - 1]->prompt_ids[t]
                                   : 3 + (int32_t)rng_below(&rng, 140);
        set_add(&s, a, NEW_TOKENS);
        a->spec.ignore_eos = true;
    }
    alone(&s, (struct rig_options){.chunk = 512, .dtype = type, .slack = KEEP_ALL});
    const struct rig_options ways[] = {
        {.block_tokens = 16, .max_batch = 16, .chunk = 64, .dtype = type},
        {.block_tokens = 5, .max_batch = 3, .chunk = 7, .dtype = type, .slack = 9},
        {.block_tokens = 1, .max_batch = 11, .chunk = 1, .dtype = type, .no_prefix = true},
    };
    for (size_t w = 0; w < sizeof ways / sizeof ways[0]; w++)
        together(&s, ways[w], name);
    split(&s, (struct rig_options){.dtype = type, .slack = 40}, 16, name);
    set_close(&s);
}

Test(models, what_no_window_reaches_is_given_back, .timeout = 240)
{
    static const char *const names[] = {"mistral", "phi3",  "gemma2", "gemma3",
                                        "gpt-oss", "qwen2", "olmo3",  "phi3-longrope-long"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        check_sliding(names[i], (enum dtype)(DTYPE_BF16 + i % (DTYPE_KV_COUNT - DTYPE_BF16)));
}
