#include "support/fake_model.h"

#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/rng.h"
#include "engine/sampler.h"

struct fake_model fake_model_default(void)
{
    return (struct fake_model){
        .vocab = 64, .layers = 2, .kv_heads = 2, .max_context = 512, .weights = 1, .eos = FAKE_EOS};
}

void fake_slide(struct fake_model *m, const int32_t *windows, int32_t n, int32_t slack)
{
    for (int32_t i = 0; i < m->layers; i++) {
        m->window[i] = windows[i % n];
        assert(m->window[i] >= 0 && m->window[i] <= FAKE_WINDOW_MAX);
    }
    kv_groups_make(m->window, m->layers, &m->groups);
    m->groups.slack = slack;
}

struct kv_layout fake_layout(const struct fake_model *m, enum dtype dtype, int32_t block_tokens,
                             int32_t blocks)
{
    return (struct kv_layout){.layers = m->layers,
                              .kv_heads = m->kv_heads,
                              .head_dim = FAKE_HEAD_DIM,
                              .value_dim = FAKE_HEAD_DIM,
                              .block_tokens = block_tokens,
                              .blocks = blocks,
                              .dtype = dtype,
                              .groups = m->groups.n > 0 ? &m->groups : NULL};
}

/* One position's KV of one layer is one number of 32 bits per head: two to an element, of K and
 * then of V. */
static uint64_t head_value(const struct fake_model *m, int layer, int head, int32_t position,
                           uint64_t input)
{
    return rng_hash(m->weights ^ input, (uint64_t)layer, (uint64_t)head, (uint64_t)position) >> 32;
}

static char *slot_of(const struct model_kv *kv, const int32_t *table, int layer, enum kv_part part,
                     int head, int32_t position)
{
    const struct kv_layout *l = &kv->layout;
    int32_t block = table[position / l->block_tokens];
    assert(block >= 0 && block < l->blocks);
    return (char *)kv->pool + kv_offset(l, layer, block, part, head, position % l->block_tokens);
}

static void store(const struct model_kv *kv, const int32_t *table, int layer, int head,
                  int32_t position, uint64_t value)
{
    for (enum kv_part part = KV_KEY; part <= KV_VALUE; part++) {
        float x[FAKE_HEAD_DIM];
        for (int d = 0; d < FAKE_HEAD_DIM; d++, value >>= 2)
            x[d] = (float)(value & 3);
        kv_vector_narrow(slot_of(kv, table, layer, part, head, position), kv->layout.dtype, x,
                         FAKE_HEAD_DIM);
    }
}

static uint64_t load(const struct model_kv *kv, const int32_t *table, int layer, int head,
                     int32_t position)
{
    uint64_t value = 0;
    for (enum kv_part part = KV_KEY; part <= KV_VALUE; part++) {
        float x[FAKE_HEAD_DIM];
        kv_vector_widen(x, slot_of(kv, table, layer, part, head, position), kv->layout.dtype,
                        FAKE_HEAD_DIM);
        /* Never-written memory may hold anything: no undefined behaviour, only wrong. */
        for (int d = 0; d < FAKE_HEAD_DIM; d++) {
            uint64_t whole = x[d] > -0.5f && x[d] < 3.5f ? (uint64_t)(x[d] + 0.5f) : 9;
            value += whole << 2 * (d + FAKE_HEAD_DIM * (int)part);
        }
    }
    return value;
}

/* "Attention": a number over one layer's KV at the positions that `last` sees. */
static uint64_t attend(const struct fake_model *m, const struct model_kv *kv, const int32_t *table,
                       int layer, int32_t last)
{
    uint64_t sum = 0;
    int32_t window = m->window[layer], first = window > 0 && last >= window ? last + 1 - window : 0;
    for (int32_t p = first; p <= last; p++)
        for (int h = 0; h < kv->layout.kv_heads; h++)
            sum += rng_mix(load(kv, table, layer, h, p) + (uint64_t)p);
    return sum;
}

static const int32_t *table_of(const struct batch *b, const struct model_kv *kv, int32_t row,
                               int layer)
{
    return b->block_tables[kv_group_of(&kv->layout, layer) * b->sequences + b->seq_of[row]];
}

static void logits_from(const struct fake_model *m, uint64_t state, float *logits)
{
    for (int32_t v = 0; v < m->vocab; v++)
        logits[v] =
            m->broken ? NAN : (float)(rng_hash(state, (uint64_t)v, 0, 0) >> 44) * 0x1p-18F - 2;
}

static void forward(void *ctx, const struct batch *b, const struct model_kv *kv, float *logits,
                    model_layer_done_fn *done, void *done_ctx)
{
    struct fake_model *m = ctx;
    m->forwards++;
    m->rows += b->tokens;
    for (int32_t r = 0; b->is_long != NULL && r < b->tokens; r++)
        m->long_rows += b->is_long[b->seq_of[r]];
    m->rows_max = b->tokens > m->rows_max ? b->tokens : m->rows_max;
    m->logits_max = b->n_logits > m->logits_max ? b->n_logits : m->logits_max;
    for (int layer = 0; layer < m->layers; layer++) {
        for (int32_t r = 0; r < b->tokens; r++) {
            int32_t position = b->positions[r];
            uint64_t input = (uint64_t)b->ids[r];
            if (layer > 0)
                input += attend(m, kv, table_of(b, kv, r, layer - 1), layer - 1, position);
            for (int h = 0; h < m->kv_heads; h++)
                store(kv, table_of(b, kv, r, layer), layer, h, position,
                      head_value(m, layer, h, position, input));
        }
        if (done)
            done(done_ctx, layer);
    }
    for (int32_t i = 0; i < b->n_logits; i++) {
        int32_t r = b->logits_rows[i];
        uint64_t state = 0;
        for (int layer = 0; layer < m->layers; layer++)
            state =
                rng_mix(state + attend(m, kv, table_of(b, kv, r, layer), layer, b->positions[r]));
        logits_from(m, state, logits + (size_t)i * (size_t)m->vocab);
    }
}

static bool is_long(const void *ctx, int32_t prompt_tokens)
{
    const struct fake_model *m = ctx;
    return m->long_from > 0 && prompt_tokens >= m->long_from;
}

struct engine_runner fake_runner(struct fake_model *m)
{
    return (struct engine_runner){.ctx = m,
                                  .forward = forward,
                                  .is_long = is_long,
                                  .vocab = m->vocab,
                                  .max_context = m->max_context,
                                  .eos = &m->eos,
                                  .n_eos = 1};
}

/* Per layer the running sum that attend() would find, so that the oracle costs one step per token.
 */
struct oracle {
    uint64_t sums[FAKE_LAYERS_MAX];
    uint64_t seen[FAKE_LAYERS_MAX][FAKE_WINDOW_MAX]; /* what each position gave, of sliding ones */
};

static void oracle_push(const struct fake_model *m, struct oracle *o, int32_t id, int32_t position)
{
    assert(m->layers <= FAKE_LAYERS_MAX);
    uint64_t input = (uint64_t)id;
    for (int layer = 0; layer < m->layers; layer++) {
        uint64_t more = 0;
        for (int h = 0; h < m->kv_heads; h++)
            more += rng_mix(head_value(m, layer, h, position, input) + (uint64_t)position);
        o->sums[layer] += more;
        if (m->window[layer] > 0) {
            uint64_t *seen = &o->seen[layer][position % m->window[layer]];
            o->sums[layer] -= *seen;
            *seen = more;
        }
        input = (uint64_t)id + o->sums[layer];
    }
}

void fake_fill(const struct fake_model *m, const struct model_kv *kv, struct fake_table table,
               const struct msg_ids *ids, int32_t begin)
{
    struct oracle o = {{0}};
    const struct kv_layout *l = &kv->layout;
    for (int32_t p = 0; p < (int32_t)ids->n; p++) {
        uint64_t input = (uint64_t)ids->v[p];
        oracle_push(m, &o, ids->v[p], p);
        for (int layer = 0; p >= begin && layer < m->layers; layer++) {
            int32_t group = kv_group_of(l, layer);
            const int32_t *blocks = table.blocks + group * table.stride;
            bool lands = p >= kv_groups_need_from(l->groups, group, (int32_t)ids->n);
            for (int h = 0; lands && h < m->kv_heads; h++)
                store(kv, blocks, layer, h, p, head_value(m, layer, h, p, input));
            input = (uint64_t)ids->v[p] + o.sums[layer];
        }
    }
}

static void oracle_logits(const struct fake_model *m, const struct oracle *o, float *logits)
{
    uint64_t state = 0;
    for (int layer = 0; layer < m->layers; layer++)
        state = rng_mix(state + o->sums[layer]);
    logits_from(m, state, logits);
}

void fake_logits(const struct fake_model *m, const int32_t *ids, int32_t n, float *logits)
{
    struct oracle o = {{0}};
    for (int32_t p = 0; p < n; p++)
        oracle_push(m, &o, ids[p], p);
    oracle_logits(m, &o, logits);
}

static bool ends(const struct fake_model *m, const struct msg_sampling *spec, int32_t id,
                 int32_t generated)
{
    bool stop = !spec->ignore_eos && id == m->eos;
    for (uint32_t i = 0; i < spec->stop_ids.n; i++)
        stop = stop || spec->stop_ids.v[i] == id;
    return stop && generated > spec->min_tokens;
}

/* What a text may be: all of it NULL where anything may. */
struct bounds {
    struct grammar *grammar;
    struct grammar_run *run;
    struct grammar_state at;
};

static void bounds_init(struct bounds *b, const struct fake_model *m,
                        const struct msg_grammar *what)
{
    *b = (struct bounds){0};
    if (what->kind == MSG_GRAMMAR_NONE || m->grammars == NULL)
        return;
    enum status st = grammar_compile_for(m->grammars, (enum grammar_kind)what->kind, what->text,
                                         what->len, &b->grammar, NULL);
    if (st == ST_OK)
        st = grammar_run_create(b->grammar, m->grammars, &b->run, NULL);
    assert(st == ST_OK);
    b->at = grammar_begin(b->run);
}

static void bounds_fini(struct bounds *b)
{
    grammar_run_free(b->run);
    grammar_free(b->grammar);
}

static void bounds_push(struct bounds *b, int32_t id)
{
    if (b->run != NULL && id != FAKE_EOS && grammar_accept(b->run, &b->at, id, NULL) != ST_OK)
        assert(false);
}

static void bounds_mask(struct bounds *b, struct sampler_input *in)
{
    if (b->run == NULL)
        return;
    enum status st = grammar_mask(b->run, &b->at, &in->mask, NULL);
    assert(st == ST_OK);
    in->may_end = grammar_is_complete(b->run, &b->at);
}

int32_t fake_generate(const struct fake_model *m, const struct msg_ids *prompt,
                      const struct msg_ids *emitted, const struct msg_sampling *spec,
                      int32_t choice, int32_t *out, enum msg_finish_reason *reason)
{
    int32_t *ids = calloc((size_t)m->max_context + 1, sizeof *ids), n = 0, said = 0;
    float *logits = calloc((size_t)m->vocab, sizeof *logits);
    struct sampler *sampler = sampler_create(m->vocab);
    struct oracle o = {{0}};
    struct bounds bounds;
    bounds_init(&bounds, m, &spec->grammar);
    int32_t before = (int32_t)(prompt->n + (emitted ? emitted->n : 0));
    assert(ids && logits && sampler && before <= m->max_context);
    for (; n < before; n++) {
        ids[n] = n < (int32_t)prompt->n ? prompt->v[n] : emitted->v[n - (int32_t)prompt->n];
        oracle_push(m, &o, ids[n], n);
        if (n >= (int32_t)prompt->n)
            bounds_push(&bounds, ids[n]);
    }
    *reason = 0;
    while (*reason == 0) {
        int32_t generated = n - (int32_t)prompt->n;
        if (generated > 0 && ends(m, spec, ids[n - 1], generated)) {
            *reason = MSG_FINISH_STOP;
        } else if (bounds.run && grammar_is_over(bounds.run, &bounds.at)) {
            *reason = MSG_FINISH_STOP;
        } else if (generated >= spec->max_tokens || n >= m->max_context) {
            *reason = MSG_FINISH_LENGTH;
        } else {
            struct sampler_input in = {.logits = logits,
                                       .spec = spec,
                                       .ids = ids,
                                       .n_ids = n,
                                       .n_prompt = (int32_t)prompt->n,
                                       .choice = choice,
                                       .eos = &m->eos,
                                       .n_eos = 1};
            struct msg_token t;
            oracle_logits(m, &o, logits);
            bounds_mask(&bounds, &in);
            enum status st = sampler_pick(sampler, &in, &t);
            assert(st == ST_OK);
            out[said++] = ids[n] = t.id;
            oracle_push(m, &o, t.id, n);
            bounds_push(&bounds, t.id);
            n++;
        }
    }
    bounds_fini(&bounds);
    sampler_destroy(sampler);
    free(logits);
    free(ids);
    return said;
}
