/* The fingerprint: what the keys and values of a model depend on, hashed twice with different
 * seeds.
 *
 * Weights are sampled: reading them all would cost minutes at start, and two checkpoints of one
 * shape that are not the same training differ everywhere. How a checkpoint is cut into shards does
 * not matter. Lengths and limits that do not enter the computation (context, end tokens) are left
 * out.
 */
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "model/model_impl.h"

#define SAMPLES 32
#define AROUND_BYTES UINT64_C(65536) /* of a page that is read, as Linux maps them */
#define LET_GO_BYTES (UINT64_C(64) << 20)
#define SAMPLE_BYTES 64
#define SAMPLE_ROWS 5
#define WHOLE_MAX_BYTES (SAMPLES * SAMPLE_BYTES)

static void add(struct fingerprint *f, const void *data, size_t bytes)
{
    for (int i = 0; i < 2; i++)
        f->w[i] = hash_bytes(f->w[i], data, bytes);
}

static void add_u64(struct fingerprint *f, uint64_t v)
{
    unsigned char le[8];
    for (int i = 0; i < 8; i++)
        le[i] = (unsigned char)(v >> (8 * i));
    add(f, le, sizeof le);
}

static void add_str(struct fingerprint *f, const char *s)
{
    size_t n = strlen(s);
    add_u64(f, n);
    add(f, s, n);
}

static void add_real(struct fingerprint *f, double v)
{
    uint64_t bits;
    memcpy(&bits, &v, sizeof bits);
    add_u64(f, bits);
}

static void add_rope(struct fingerprint *f, const struct rope_config *r)
{
    const double numbers[] = {r->kind,
                              r->dim,
                              r->theta,
                              r->factor,
                              r->low_freq_factor,
                              r->high_freq_factor,
                              r->beta_fast,
                              r->beta_slow,
                              r->truncate,
                              r->attention_factor,
                              r->original_context};
    for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++)
        add_real(f, numbers[i]);
    for (int32_t i = 0; r->kind == ROPE_LONGROPE && i < r->dim / 2; i++) {
        add_real(f, (double)r->short_factor[i]);
        add_real(f, (double)r->long_factor[i]);
    }
}

static void add_config(struct fingerprint *f, const struct model_config *c)
{
    const double numbers[] = {
        c->vocab,
        c->hidden,
        c->layers,
        c->heads,
        c->kv_heads,
        c->head_dim,
        c->ffn,
        c->qkv_bias,
        c->o_bias,
        c->mlp_bias,
        c->tied,
        c->norm_eps,
        c->norm_offset,
        c->block_norm_eps,
        c->pre_norm,
        c->post_norm,
        c->qk_norm,
        c->attention,
        c->sinks,
        c->clip_qkv,
        c->attention_scale,
        c->residual_scale,
        c->embed_scale,
        c->activation,
        c->attention_softcap,
        c->final_softcap,
        c->logits_scale,
        c->glu_limit,
        c->glu_alpha,
        c->moe.experts,
        c->moe.top_k,
        c->moe.ffn,
        c->moe.shared_ffn,
        c->moe.shared_gate,
        c->moe.router_bias,
        c->moe.choice_bias,
        c->moe.normalize,
        c->moe.score,
        c->moe.groups,
        c->moe.top_groups,
        c->moe.scale,
        c->latent.kv_rank,
        c->latent.rope_dim,
        c->latent.q_rank,
        c->latent.nope_dim,
        c->latent.value_dim,
        c->kv_layers,
        c->rope_interleaved,
    };
    add_str(f, c->architecture);
    for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++)
        add_real(f, numbers[i]);
    for (int32_t i = 0; i < c->layers; i++) {
        const struct layer_config *l = &c->layer[i];
        add_u64(f, (uint64_t)l->mlp);
        add_u64(f, (uint64_t)l->window);
        add_u64(f, (uint64_t)l->kv_from);
        add_u64(f, (uint64_t)(l->rope + 1));
    }
    for (int i = 0; i < MODEL_ROPES; i++)
        add_rope(f, &c->ropes[i]);
}

/* Elements that lie there as they are: some of their bytes. Others: some rows of their values. */
static void add_values(struct fingerprint *f, const struct weight *w)
{
    const uint64_t bytes = w->stored_bytes, last = bytes - SAMPLE_BYTES;
    if (w->data && bytes <= WHOLE_MAX_BYTES) {
        add(f, w->data, (size_t)bytes);
        return;
    }
    if (w->data) {
        for (uint64_t i = 0; i < SAMPLES; i++) {
            uint64_t at = i == SAMPLES - 1 ? last : last / (SAMPLES - 1) * i;
            add(f, (const char *)w->data + at, SAMPLE_BYTES);
        }
        return;
    }
    float *row = w->readable ? malloc((size_t)w->cols * sizeof *row) : NULL;
    for (uint64_t i = 0; row && w->rows > 0 && i < SAMPLE_ROWS; i++) {
        uint64_t at = (w->rows - 1) * i / (SAMPLE_ROWS - 1);
        weight_read_rows(w, at, at + 1, row);
        add(f, row, (size_t)w->cols * sizeof *row);
    }
    free(row);
}

static void add_tensor(struct fingerprint *f, const struct weight *w)
{
    add_str(f, w->name);
    add_str(f, w->format);
    add_u64(f, (uint64_t)w->rank);
    for (int i = 0; i < w->rank; i++)
        add_u64(f, w->shape[i]);
    add_values(f, w);
}

struct adder {
    struct fingerprint f;
    const struct weight_source *source;
    const struct weight *last;
    uint64_t mapped; /* bytes of the checkpoint, about */
};

/* A sample maps what lies around it: those of a whole checkpoint would be most of it in memory at
 * once, beside which what is made of it may be small. */
static void have_read(struct adder *a, const struct weight *w)
{
    const uint64_t around = SAMPLES * AROUND_BYTES;
    a->mapped += w->stored_bytes < around ? w->stored_bytes : around;
    if (a->mapped < LET_GO_BYTES)
        return;
    weight_source_let_go(a->source);
    a->mapped = 0;
}

/* Parts of one tensor mostly come one after the other: it is added once for all. */
static enum status add_weight(void *ctx, const struct weight_spec *s)
{
    struct adder *a = ctx;
    const struct weight *w = weights_find(a->source, s);
    if (w && w != a->last) {
        add_tensor(&a->f, w);
        have_read(a, w);
    }
    a->last = w;
    return ST_OK;
}

struct fingerprint fingerprint_compute(const struct model_config *c,
                                       const struct weight_source *source)
{
    struct adder a = {.f = {{UINT64_C(0x6261746f6e206670), UINT64_C(0x9e3779b97f4a7c15)}},
                      .source = source};
    add_config(&a.f, c);
    weights_list(c, NULL, add_weight, &a);
    return a.f;
}
