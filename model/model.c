/* Loading and the small questions; the work is in weights.c and forward.c. */
#include "model/model.h"

#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/huge.h"
#include "model/model_impl.h"
#include "model/profile.h"

#define BATCH_TOKENS_MAX (1 << 20)
#define SCRATCH_ALIGN 64
/* What attention shares out of one row: 16 heads of latents to a depth of 256k, and 8 kv heads of 4
 * queries each to 512k; of several in one tile, so much less. */
#define SPLIT_BYTES ((size_t)16 << 20)
#define SPLIT_BYTES_EACH ((size_t)1 << 20)

static int32_t larger(int32_t a, int32_t b)
{
    return a > b ? a : b;
}

int32_t model_qkv_width(const struct model_config *c)
{
    if (c->attention == ATTENTION_LATENT)
        return larger(c->heads * c->head_dim + model_key_dim(c), c->heads * c->latent.value_dim);
    return (c->heads + 2 * c->kv_heads) * c->head_dim;
}

int32_t model_attention_width(const struct model_config *c)
{
    return c->heads * (c->attention == ATTENTION_LATENT ? c->latent.kv_rank : c->head_dim);
}

size_t model_pairs_max(const struct model_config *c, int32_t tokens)
{
    return (size_t)tokens * (size_t)c->moe.top_k;
}

/* Spans of the largest input of any gemm: rows of the batch, or pairs. */
static size_t spans_max(const struct model *m)
{
    const struct model_config *c = &m->config;
    int32_t wide = larger(larger(c->hidden, larger(c->ffn, c->moe.shared_ffn)),
                          larger(model_qkv_width(c), c->latent.q_rank));
    int32_t pair = larger(larger(c->hidden, c->moe.ffn), c->kv_heads * c->head_dim);
    size_t of_row = (size_t)wide / PACKED_SPAN + 4, of_pair = (size_t)pair / PACKED_SPAN + 4;
    size_t rows = (size_t)m->max_tokens * of_row;
    size_t pairs = model_pairs_max(c, m->max_tokens) * of_pair;
    return rows > pairs ? rows : pairs;
}

/* Whether rows have one scale for two spans. In tiles of bytes a product costs half as much then,
 * in vectors what it did; and rounding rows costs half as much again: next to what rounding weights
 * to 4 bits does that is nothing, next to 8 bits a fifth of all. */
static bool pairs_spans(const struct model *m)
{
    bool pairs = m->ops->tiles && m->weights.n_packed > 0;
    for (size_t i = 0; i < m->weights.n_packed; i++)
        pairs = pairs && m->weights.packed[i].bits == 4 && packed_pairs(&m->weights.packed[i]);
    return pairs;
}

/* Sizes are bounded by config*.c and BATCH_TOKENS_MAX: no product here passes 2^50. */
static enum status scratch_init(struct scratch *s, const struct model *m, struct error *err)
{
    const struct model_config *c = &m->config;
    const size_t tokens = (size_t)m->max_tokens, selected = (size_t)m->max_logits;
    const size_t hidden = (size_t)c->hidden, pairs = model_pairs_max(c, m->max_tokens);
    const size_t experts = (size_t)c->moe.experts, kv = (size_t)(c->kv_heads * c->head_dim);
    const size_t wide = (size_t)larger(c->ffn, c->moe.shared_ffn), ffn = (size_t)c->moe.ffn;
    const size_t units = tokens * wide > pairs * ffn ? tokens * wide : pairs * ffn;
    const bool is_latent = c->attention == ATTENTION_LATENT;
    const size_t latent =
        is_latent ? (size_t)larger(c->latent.q_rank, c->heads * model_key_dim(c)) : 0;
    const size_t pair = pairs == 0 ? 0 : c->attention == ATTENTION_MOA && kv > hidden ? kv : hidden;
    const size_t spans = spans_max(m);
    const size_t given = pairs > tokens ? pairs : tokens; /* of a shared unit too */
    s->x8.whole = m->weights.reads_bytes && m->weights.whole_rows;
    s->x8.paired = s->x8.whole || pairs_spans(m);
    s->split_bytes = SPLIT_BYTES + (size_t)team_size(m->team) * SPLIT_BYTES_EACH;
    struct {
        void *slot;
        size_t elements;
    } parts[] = {
        {&s->x, tokens * hidden},
        {&s->h, tokens * hidden},
        {&s->block, c->post_norm ? tokens * hidden : 0},
        {&s->qkv, tokens * (size_t)model_qkv_width(c)},
        {&s->angles[0], tokens * (size_t)c->ropes[0].dim},
        {&s->angles[1], tokens * (size_t)c->ropes[1].dim},
        {&s->attn, tokens * (size_t)model_attention_width(c)},
        {&s->split, s->split_bytes / sizeof(float)},
        {&s->latent, tokens * latent},
        {&s->gate, units},
        {&s->up, units},
        {&s->router, tokens * experts},
        {&s->weight, pairs},
        {&s->pair_in, pairs * pair},
        {&s->pair_out, pairs ? given * pair : 0},
        {&s->x_sel, selected * hidden},
        {&s->h_sel, selected * hidden},
        {&s->sel_positions, selected},
        {&s->sel_seq_of, selected},
        {&s->expert, pairs},
        {&s->pair_row, pairs},
        {&s->pair_of, pairs},
        {&s->expert_end, experts},
        {&s->x8.q, m->weights.reads_bytes ? spans * PACKED_SPAN / sizeof(float) : 0},
        {&s->x8.scale, m->weights.reads_bytes ? spans : 0},
        {&s->x8.sum, m->weights.reads_bytes ? 2 * spans : 0},
        {&s->x16, m->weights.rounds ? spans * PACKED_SPAN / 2 : 0},
    };
    const size_t n = sizeof parts / sizeof parts[0], line = SCRATCH_ALIGN / sizeof(float);
    size_t total = 0;
    for (size_t i = 0; i < n; i++) {
        parts[i].elements = (parts[i].elements + line) / line * line;
        total += parts[i].elements;
    }
    s->bytes = total * sizeof(float);
    s->memory = huge_alloc(s->bytes);
    if (!s->memory)
        return err_set(err, ST_NO_MEMORY, "no memory for the activations of %d tokens (%zu MiB)",
                       m->max_tokens, s->bytes >> 20);
    team_place(m->team, s->memory, s->bytes);
    float *at = s->memory;
    for (size_t i = 0; i < n; i++) {
        *(void **)parts[i].slot = at;
        at += parts[i].elements;
    }
    return ST_OK;
}

static enum status ropes_init(struct model *m, struct error *err)
{
    size_t total = 0;
    for (int i = 0; i < MODEL_ROPES; i++)
        total += (size_t)m->config.ropes[i].dim;
    float *at = m->inv_freq_memory = calloc(total + 1, sizeof *at);
    if (!at)
        return err_set(err, ST_NO_MEMORY, "no memory for a model");
    for (int i = 0; i < MODEL_ROPES; i++)
        for (int is_long = 0; is_long < 2; is_long++, at += m->config.ropes[i].dim / 2) {
            m->inv_freq[i][is_long] = at;
            model_rope_frequencies(&m->config.ropes[i], is_long, at);
        }
    for (int32_t layer = m->config.layers - 1; layer >= 0; layer--)
        if (m->config.layer[layer].rope >= 0)
            m->rope_first[m->config.layer[layer].rope] = layer;
    return ST_OK;
}

bool model_weights_form_parse(const char *name, enum model_weights_form *out)
{
    static const char *const names[] = {"auto", "packed", "float", "wide", "int8"};
    for (int i = 0; i < MODEL_WEIGHTS_FORMS; i++)
        if (strcmp(name, names[i]) == 0) {
            *out = (enum model_weights_form)i;
            return true;
        }
    return false;
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
    m->work = work_create(team_size(args->team));
    m->max_tokens = args->max_batch_tokens;
    m->max_logits = args->max_logits_rows < args->max_batch_tokens ? args->max_logits_rows
                                                                   : args->max_batch_tokens;
    enum status st = m->work ? model_config_read(args->dir, &m->config, &m->defaults, err)
                             : err_set(err, ST_NO_MEMORY, "no memory for a model");
    if (!st)
        st = weight_source_open(args->dir, &m->source, err);
    if (!st) {
        weights_settle(m->source, &m->config);
        m->fingerprint = fingerprint_compute(&m->config, m->source);
    }
    if (!st)
        st = weights_bind(&(struct weights_args){.config = &m->config,
                                                 .source = m->source,
                                                 .dir = args->dir,
                                                 .team = args->team,
                                                 .form = args->weights,
                                                 .cache = args->weights_cache,
                                                 .stop = args->stop,
                                                 .fingerprint = m->fingerprint,
                                                 .rounds = args->ops->round != NULL,
                                                 .panels = args->ops->panels},
                          &m->weights, err);
    if (!st)
        st = scratch_init(&m->scratch, m, err);
    if (!st)
        st = ropes_init(m, err);
    if (st) {
        model_free(m);
        return st;
    }
    *out = m;
    return ST_OK;
}

void model_free(struct model *m)
{
    if (!m)
        return;
    model_profile_stop(m);
    free(m->inv_freq_memory);
    huge_free(m->scratch.memory, m->scratch.bytes);
    weights_fini(&m->weights);
    weight_source_close(m->source);
    work_destroy(m->work);
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

bool model_is_long(const struct model *m, int32_t prompt_tokens)
{
    const struct rope_config *r = &m->config.ropes[0];
    return r->kind == ROPE_LONGROPE && prompt_tokens > r->original_context;
}

enum model_math model_get_math(const struct model *m)
{
    if (m->weights.reads_bytes)
        return MODEL_MATH_INT8;
    return m->weights.rounds ? MODEL_MATH_BF16 : MODEL_MATH_FLOAT;
}

uint64_t model_weight_bytes(const struct model *m)
{
    return m->weights.bytes;
}

uint64_t model_expert_bytes(const struct model *m)
{
    return m->scratch.expert_bytes;
}

struct kv_layout model_kv_layout(const struct model *m, enum dtype dtype, int32_t block_tokens,
                                 uint64_t pool_bytes)
{
    struct kv_layout l = {.layers = m->config.kv_layers,
                          .kv_heads = m->config.kv_heads,
                          .head_dim = model_key_dim(&m->config),
                          .value_dim = model_value_dim(&m->config),
                          .block_tokens = block_tokens,
                          .dtype = dtype,
                          .groups = &m->config.kv_groups};
    assert(block_tokens > 0);
    uint64_t blocks = pool_bytes / kv_page_bytes(&l);
    l.blocks = blocks > INT32_MAX ? INT32_MAX : (int32_t)blocks;
    return l;
}
