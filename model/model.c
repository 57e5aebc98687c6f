/* Loading and the small questions; the work is in weights.c and forward.c. */
#include "model/model.h"

#include <assert.h>
#include <math.h>
#include <stdlib.h>

#include "model/model_impl.h"

#define BATCH_TOKENS_MAX (1 << 20)
#define SCRATCH_ALIGN 64

/* Sizes are bounded by config.c and BATCH_TOKENS_MAX: no product here passes 2^42. */
static enum status scratch_init(struct scratch *s, const struct model *m, struct error *err)
{
    const struct model_config *c = &m->config;
    const size_t tokens = (size_t)m->max_tokens, selected = (size_t)m->max_logits;
    const size_t hidden = (size_t)c->hidden, ffn = (size_t)c->ffn, dim = (size_t)c->head_dim;
    const size_t q = (size_t)c->heads * dim, kv = (size_t)c->kv_heads * dim;
    struct {
        void *slot;
        size_t elements;
    } parts[] = {
        {&s->x, tokens * hidden},         {&s->h, tokens * hidden},
        {&s->qkv, tokens * (q + 2 * kv)}, {&s->attn, tokens * q},
        {&s->gate, tokens * ffn},         {&s->up, tokens * ffn},
        {&s->x_sel, selected * hidden},   {&s->h_sel, selected * hidden},
        {&s->sel_positions, selected},    {&s->sel_seq_of, selected},
    };
    const size_t n = sizeof parts / sizeof parts[0], line = SCRATCH_ALIGN / sizeof(float);
    size_t total = 0;
    for (size_t i = 0; i < n; i++) {
        parts[i].elements = (parts[i].elements + line) / line * line;
        total += parts[i].elements;
    }
    s->memory = aligned_alloc(SCRATCH_ALIGN, total * sizeof(float));
    if (!s->memory)
        return err_set(err, ST_NO_MEMORY, "no memory for the activations of %d tokens (%zu MiB)",
                       m->max_tokens, total * sizeof(float) >> 20);
    float *at = s->memory;
    for (size_t i = 0; i < n; i++) {
        *(void **)parts[i].slot = at;
        at += parts[i].elements;
    }
    return ST_OK;
}

enum status model_load(const struct model_load_args *args, struct model **out, struct error *err)
{
    assert(args->ops && args->team && args->max_batch_tokens > 0 && args->max_logits_rows > 0);
    if (args->max_batch_tokens > BATCH_TOKENS_MAX)
        return err_set(err, ST_INVALID, "batch of %d tokens, at most %d", args->max_batch_tokens,
                       BATCH_TOKENS_MAX);
    struct model *m = calloc(1, sizeof *m);
    if (!m)
        return err_set(err, ST_NO_MEMORY, "no memory for a model");
    m->ops = args->ops;
    m->team = args->team;
    m->max_tokens = args->max_batch_tokens;
    m->max_logits = args->max_logits_rows < args->max_batch_tokens ? args->max_logits_rows
                                                                   : args->max_batch_tokens;
    enum status st = model_config_read(args->dir, &m->config, &m->defaults, err);
    if (!st)
        st = checkpoint_open(args->dir, &m->checkpoint, err);
    if (!st)
        st = weights_bind(&m->config, m->checkpoint, args->dir, &m->weights, err);
    if (!st)
        st = scratch_init(&m->scratch, m, err);
    if (!st && !(m->inv_freq = calloc((size_t)m->config.head_dim, sizeof *m->inv_freq)))
        st = err_set(err, ST_NO_MEMORY, "no memory for a model");
    if (st) {
        model_free(m);
        return st;
    }
    model_rope_frequencies(&m->config, m->inv_freq, &m->attention_factor);
    m->fingerprint = fingerprint_compute(&m->config, m->checkpoint);
    *out = m;
    return ST_OK;
}

void model_free(struct model *m)
{
    if (!m)
        return;
    free(m->inv_freq);
    free(m->scratch.memory);
    weights_fini(&m->weights);
    checkpoint_close(m->checkpoint);
    free(m);
}

const struct model_config *model_get_config(const struct model *m)
{
    return &m->config;
}

const struct generation_defaults *model_get_defaults(const struct model *m)
{
    return &m->defaults;
}

struct fingerprint model_fingerprint(const struct model *m)
{
    return m->fingerprint;
}

uint64_t model_weight_bytes(const struct model *m)
{
    return m->weights.bytes;
}

struct kv_layout model_kv_layout(const struct model *m, enum dtype dtype, int32_t block_tokens,
                                 uint64_t pool_bytes)
{
    struct kv_layout l = {.layers = m->config.layers,
                          .kv_heads = m->config.kv_heads,
                          .head_dim = m->config.head_dim,
                          .block_tokens = block_tokens,
                          .dtype = dtype};
    assert(block_tokens > 0);
    uint64_t blocks = pool_bytes / ((uint64_t)l.layers * kv_block_bytes(&l));
    l.blocks = blocks > INT32_MAX ? INT32_MAX : (int32_t)blocks;
    return l;
}
