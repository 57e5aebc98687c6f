/* The fingerprint: what the keys and values of a model depend on, hashed twice with different
 * seeds.
 *
 * Weights are sampled: reading them all would cost minutes at start, and two checkpoints of one
 * shape that are not the same training differ everywhere. How a checkpoint is cut into shards does
 * not matter. Lengths and limits that do not enter the computation (context, end tokens) are left
 * out.
 */
#include <string.h>

#include "base/hash.h"
#include "model/model_impl.h"

#define SAMPLES 32
#define SAMPLE_BYTES 64
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

static void add_config(struct fingerprint *f, const struct model_config *c)
{
    const int32_t sizes[] = {c->vocab,    c->hidden,   c->layers, c->heads,
                             c->kv_heads, c->head_dim, c->ffn,    c->qkv_bias,
                             c->o_bias,   c->mlp_bias, c->tied};
    add_str(f, c->architecture);
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++)
        add_u64(f, (uint64_t)sizes[i]);
    add_real(f, c->norm_eps);
    add_u64(f, (uint64_t)c->rope.kind);
    add_real(f, c->rope.theta);
    add_real(f, c->rope.factor);
    add_real(f, c->rope.low_freq_factor);
    add_real(f, c->rope.high_freq_factor);
    add_u64(f, (uint64_t)c->rope.original_context);
}

static void add_tensor(struct fingerprint *f, const struct tensor *t)
{
    add_str(f, t->name);
    add_str(f, tensor_type_name(t->type));
    add_u64(f, (uint64_t)t->rank);
    for (int i = 0; i < t->rank; i++)
        add_u64(f, t->shape[i]);
    if (t->bytes <= WHOLE_MAX_BYTES) {
        add(f, t->data, (size_t)t->bytes);
        return;
    }
    const uint64_t last = t->bytes - SAMPLE_BYTES;
    for (uint64_t i = 0; i < SAMPLES; i++) {
        uint64_t at = i == SAMPLES - 1 ? last : last / (SAMPLES - 1) * i;
        add(f, (const char *)t->data + at, SAMPLE_BYTES);
    }
}

struct fingerprint fingerprint_compute(const struct model_config *c, const struct checkpoint *ckpt)
{
    struct fingerprint f = {{UINT64_C(0x6261746f6e206670), UINT64_C(0x9e3779b97f4a7c15)}};
    struct weight_spec s;
    add_config(&f, c);
    for (size_t cursor = 0; weights_spec(c, &cursor, &s);)
        add_tensor(&f, checkpoint_find(ckpt, s.name));
    return f;
}
