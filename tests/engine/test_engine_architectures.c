/* One checkpoint of every architecture: a prefill and a decode engine with blocks of other sizes
 * say, token for token and bit for bit, what one engine says that does both, alone or in company;
 * and the greedy tokens are those of transformers. */
#include <dirent.h>
#include <stdio.h>
#include <unistd.h>

#include "base/json.h"
#include "split_rig.h"

#define GOLDENS BATON_SOURCE_DIR "/tests/model/goldens/"
#define NEW_TOKENS 24
#define SLACK 11 /* what is older than the window is given back, nearly at once */

static void add(struct set *s, struct ask *a)
{
    set_add(s, a, NEW_TOKENS);
    a->spec.ignore_eos = true;
}

static struct ask *prompt_random(int32_t vocab, uint64_t seed, int32_t tokens)
{
    struct ask *a = ask_new(seed, tokens, 1);
    struct rng rng = rng_seed(seed);
    for (int32_t i = 0; i < tokens; i++)
        a->prompt_ids[i] = (int32_t)rng_below(&rng, (uint32_t)vocab);
    return a;
}

/* The golden's prompt and three others, on both sides of windows and of LongRoPE's context. */
static void set_open(struct set *s, const char *name)
{
    static const int32_t lengths[] = {7, 65, 140};
    char path[1400];
    struct error err = {0};
    json *root = NULL;
    snprintf(path, sizeof path, GOLDENS "%s", name);
    set_load(s, path);
    snprintf(path, sizeof path, GOLDENS "%s.json", name);
    cr_assert_eq(json_read_file(path, 1 << 20, &root, &err), ST_OK, "%s", err.text);
    struct ask *a = ask_new(1, 0, 1);
    a->prompt.n = (uint32_t)json_as_int(json_get(root, "prompt_tokens"), 0);
    for (size_t i = 0; i < json_count(json_get(root, "ids")); i++)
        a->prompt_ids[i] = (int32_t)json_as_int(json_at(json_get(root, "ids"), i), -1);
    json_free(root);
    add(s, a);
    for (size_t i = 0; i < sizeof lengths / sizeof lengths[0]; i++)
        add(s, prompt_random(model_get_config(s->model)->vocab, 51 + i, lengths[i]));
}

static void check(const char *name)
{
    static const enum dtype types[] = {DTYPE_F32, DTYPE_BF16, DTYPE_INT8, DTYPE_INT4};
    struct set s;
    char what[128];
    set_open(&s, name);
    for (int i = 0; i < 4; i++) {
        struct rig_options o = {.blocks = 256, .chunk = 128, .dtype = types[i], .slack = SLACK};
        alone(&s, o);
        for (int32_t k = 0; k < s.n; k++)
            cr_assert_eq(s.prompts[k]->n_said[0], NEW_TOKENS, "%s", name);
        const struct ask *golden = s.prompts[0];
        for (uint32_t t = 0; types[i] == DTYPE_F32 && t < 8; t++)
            cr_assert_eq(golden->said[0][t], golden->prompt_ids[golden->prompt.n + t],
                         "%s: token %u of transformers", name, t);
        snprintf(what, sizeof what, "%s %s split", name, dtype_name(types[i]));
        split(&s, o, 5, what);
        snprintf(what, sizeof what, "%s %s together", name, dtype_name(types[i]));
        o.block_tokens = 7;
        o.max_batch = 3;
        o.chunk = 19;
        together(&s, o, what);
    }
    set_close(&s);
}

Test(architectures, split_together_or_alone, .timeout = 240)
{
    char path[1400];
    int n = 0;
    DIR *dir = opendir(GOLDENS);
    cr_assert_not_null(dir);
    for (const struct dirent *e; (e = readdir(dir));) {
        snprintf(path, sizeof path, GOLDENS "%s/config.json", e->d_name);
        if (e->d_name[0] == '.' || access(path, R_OK) != 0)
            continue;
        check(e->d_name);
        n++;
    }
    closedir(dir);
    cr_assert_gt(n, 25);
}
