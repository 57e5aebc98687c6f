#include "tests/model/model_rig.h"

#include <assert.h>
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct rig *rig_open(const struct rig_args *args)
{
    struct rig *r = calloc(1, sizeof *r);
    struct error err = {0};
    assert(r);
    r->team = team_create(args->threads, false, false);
    struct model_load_args load = {.dir = args->dir,
                                   .ops = args->ops,
                                   .team = r->team,
                                   .max_batch_tokens = RIG_TOKENS_MAX,
                                   .max_logits_rows = RIG_TOKENS_MAX,
                                   .weights = args->weights,
                                   .weights_cache = args->weights_cache};
    if (model_load(&load, &r->model, &err)) {
        fprintf(stderr, "rig_open: %s\n", err.text);
        abort();
    }
    r->vocab = model_get_config(r->model)->vocab;
    r->kv.layout = model_kv_layout(r->model, args->kv_dtype, args->block_tokens, 1);
    r->kv.layout.groups = NULL; /* a sequence has one table here: nothing is given back */
    r->kv.layout.blocks =
        RIG_SEQUENCES_MAX * ((2 * RIG_TOKENS_MAX + args->block_tokens - 1) / args->block_tokens);
    r->kv.pool = malloc(kv_pool_bytes(&r->kv.layout));
    assert(r->kv.pool);
    memset(r->kv.pool, 0xff, kv_pool_bytes(&r->kv.layout)); /* NaN in every dtype */
    return r;
}

void rig_close(struct rig *r)
{
    model_free(r->model);
    team_destroy(r->team);
    free(r->kv.pool);
    free(r);
}

void rig_begin(struct rig *r, struct sequence *s, const int32_t *ids)
{
    const int32_t bt = r->kv.layout.block_tokens;
    s->ids = ids;
    s->done = 0;
    s->is_long = false;
    for (int32_t i = 0; i < (2 * RIG_TOKENS_MAX + bt - 1) / bt; i++) {
        assert(r->blocks_used < r->kv.layout.blocks);
        /* from both ends in turn, so that neighbours in the table are far apart in the pool */
        int32_t n = r->blocks_used++;
        s->table[i] = n % 2 ? n / 2 : r->kv.layout.blocks - 1 - n / 2;
    }
}

static void count_layer(void *ctx, int layer)
{
    struct rig *r = ctx;
    assert(layer == r->layers_done);
    r->layers_done++;
}

int32_t rig_step(struct rig *r, const struct feed *feeds, int n_feeds, float *logits)
{
    int32_t ids[RIG_TOKENS_MAX], positions[RIG_TOKENS_MAX], seq_of[RIG_TOKENS_MAX];
    int32_t wanted[RIG_TOKENS_MAX];
    const int32_t *tables[RIG_SEQUENCES_MAX];
    uint8_t is_long[RIG_SEQUENCES_MAX];
    struct batch b = {.ids = ids,
                      .positions = positions,
                      .seq_of = seq_of,
                      .block_tables = tables,
                      .is_long = is_long,
                      .logits_rows = wanted};
    for (int i = 0; i < n_feeds; i++) {
        struct sequence *s = feeds[i].sequence;
        tables[i] = s->table;
        is_long[i] = s->is_long;
        for (int32_t k = 0; k < feeds[i].n; k++) {
            assert(b.tokens < RIG_TOKENS_MAX);
            ids[b.tokens] = s->ids[s->done];
            positions[b.tokens] = s->done++;
            seq_of[b.tokens] = i;
            if (feeds[i].want == WANT_ALL || (feeds[i].want == WANT_LAST && k == feeds[i].n - 1))
                wanted[b.n_logits++] = b.tokens;
            b.tokens++;
        }
    }
    r->layers_done = 0;
    model_forward(r->model, &b, &r->kv, logits, count_layer, r);
    assert(r->layers_done == model_get_config(r->model)->kv_layers);
    return b.n_logits;
}

int32_t rig_argmax(const struct rig *r, const float *logits)
{
    int32_t best = 0;
    for (int32_t i = 1; i < r->vocab; i++)
        best = logits[i] > logits[best] ? i : best;
    return best;
}

const char *rig_golden_path(const char *name)
{
    static char path[1024];
    snprintf(path, sizeof path, BATON_SOURCE_DIR "/tests/model/goldens/%s", name);
    return path;
}

const char *rig_shared_path(const char *name)
{
    static char path[1024];
    snprintf(path, sizeof path, BATON_SOURCE_DIR "/../shared/data/%s", name);
    return path;
}

int rig_each_golden(const char *under, rig_visit_fn *visit, void *ctx)
{
    char goldens[1024], path[1400];
    int n = 0;
    snprintf(goldens, sizeof goldens, "%s", rig_golden_path(under));
    DIR *dir = opendir(goldens);
    assert(dir);
    for (const struct dirent *e; (e = readdir(dir));) {
        snprintf(path, sizeof path, "%s/%s/config.json", goldens, e->d_name);
        if (e->d_name[0] == '.' || access(path, R_OK) != 0)
            continue;
        *strrchr(path, '/') = 0;
        visit(ctx, e->d_name, path);
        n++;
    }
    closedir(dir);
    return n;
}
