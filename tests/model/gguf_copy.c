#include "tests/model/gguf_copy.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "kernels/dtype.h"
#include "model/config.h"
#include "tests/formats/gguf_maker.h"

#define ALIGNMENT 32
enum { VALUE_U32 = 4, VALUE_F32 = 6, VALUE_STRING = 8 };

/* ---- blocks: each appends one, of as many elements as its type has ---- */

static float magnitude(const float *v, int n)
{
    float most = 0;
    for (int i = 0; i < n; i++)
        most = fmaxf(most, fabsf(v[i]));
    return most;
}

static int clamp(float v, int least, int most)
{
    return v < (float)least ? least : v > (float)most ? most : (int)rintf(v);
}

/* As it is read. */
static float put_half(struct buf *b, float v)
{
    const uint16_t half = dtype_f32_to_f16(v);
    put_uint(b, half, 2);
    return dtype_f16_to_f32(half);
}

static void put_halves(struct buf *b, const uint8_t *q)
{
    for (int i = 0; i < 16; i++)
        buf_putc(b, (char)(q[i] | q[16 + i] << 4));
}

static void put_q8_0(struct buf *b, const float *v)
{
    const float d = put_half(b, magnitude(v, 32) / 127);
    for (int i = 0; i < 32; i++)
        buf_putc(b, (char)(d > 0 ? clamp(v[i] / d, -127, 127) : 0));
}

/* The largest, with its sign, is -8. */
static void put_q4_0(struct buf *b, const float *v)
{
    uint8_t q[32];
    float most = 0;
    for (int i = 0; i < 32; i++)
        most = fabsf(v[i]) > fabsf(most) ? v[i] : most;
    const float d = put_half(b, most / -8);
    for (int i = 0; i < 32; i++)
        q[i] = (uint8_t)(d != 0 ? clamp(v[i] / d + 8, 0, 15) : 8);
    put_halves(b, q);
}

static void put_mxfp4(struct buf *b, const float *v)
{
    static const float values[8] = {0, 0.5f, 1, 1.5f, 2, 3, 4, 6};
    const float most = magnitude(v, 32);
    const int exponent = most > 0 ? ilogbf(most) - 2 : 0;
    uint8_t q[32] = {0};
    for (int i = 0; i < 32; i++) {
        const float x = ldexpf(fabsf(v[i]), -exponent);
        for (uint8_t k = 1; k < 8; k++)
            if (fabsf(x - values[k]) < fabsf(x - values[q[i]]))
                q[i] = k;
        q[i] = (uint8_t)(q[i] | (v[i] < 0 && q[i] ? 8 : 0));
    }
    buf_putc(b, (char)(exponent + 127));
    put_halves(b, q);
}

/* 8 groups of 32, their scales and minima integers of 6 bits in 12 bytes. */
static void put_q4_k(struct buf *b, const float *v)
{
    float scale[8], min[8];
    uint8_t packed[12] = {0}, q[256], s[8], m[8];
    for (int g = 0; g < 8; g++) {
        float least = 0, most = 0;
        for (int i = 0; i < 32; i++) {
            least = fminf(least, v[32 * g + i]);
            most = fmaxf(most, v[32 * g + i]);
        }
        scale[g] = (most - least) / 15;
        min[g] = -least;
    }
    const float d = put_half(b, magnitude(scale, 8) / 63);
    const float dmin = put_half(b, magnitude(min, 8) / 63);
    for (int g = 0; g < 8; g++) {
        s[g] = (uint8_t)(d > 0 ? clamp(scale[g] / d, 0, 63) : 0);
        m[g] = (uint8_t)(dmin > 0 ? clamp(min[g] / dmin, 0, 63) : 0);
        const float by = d * (float)s[g], less = dmin * (float)m[g];
        for (int i = 32 * g; i < 32 * g + 32; i++)
            q[i] = (uint8_t)(by > 0 ? clamp((v[i] + less) / by, 0, 15) : 0);
    }
    for (int g = 0; g < 4; g++) {
        packed[g] = (uint8_t)(s[g] | s[4 + g] >> 4 << 6);
        packed[4 + g] = (uint8_t)(m[g] | m[4 + g] >> 4 << 6);
        packed[8 + g] = (uint8_t)((s[4 + g] & 15) | (m[4 + g] & 15) << 4);
    }
    buf_append(b, packed, sizeof packed);
    for (int g = 0; g < 8; g += 2)
        for (int i = 0; i < 32; i++)
            buf_putc(b, (char)(q[32 * g + i] | q[32 * g + 32 + i] << 4));
}

/* 16 groups of 16, their scales integers of 8 bits. */
static void put_q6_k(struct buf *b, const float *v)
{
    uint8_t low[128] = {0}, high[64] = {0}, scales[16];
    const float d = dtype_f16_to_f32(dtype_f32_to_f16(magnitude(v, 256) / 31 / 127));
    for (int g = 0; g < 16; g++)
        scales[g] = (uint8_t)(d > 0 ? clamp(magnitude(v + 16 * g, 16) / 31 / d, 0, 127) : 0);
    for (int i = 0; i < 256; i++) {
        const float by = d * scales[i / 16];
        const int q = by > 0 ? clamp(v[i] / by, -32, 31) + 32 : 32;
        const int half = i / 128, part = i / 32 % 4, k = i % 32;
        low[half * 64 + part % 2 * 32 + k] |= (uint8_t)((q & 15) << part / 2 * 4);
        high[half * 32 + k] |= (uint8_t)(q >> 4 << part * 2);
    }
    buf_append(b, low, sizeof low);
    buf_append(b, high, sizeof high);
    buf_append(b, scales, sizeof scales);
    put_half(b, d);
}

/* ---- tensors ---- */

typedef void put_block_fn(struct buf *b, const float *v);

static put_block_fn *block_of(enum ggml_type type)
{
    return type == GGML_Q8_0   ? put_q8_0
           : type == GGML_Q4_0 ? put_q4_0
           : type == GGML_Q4_K ? put_q4_k
           : type == GGML_Q6_K ? put_q6_k
                               : put_mxfp4;
}

static enum ggml_type type_of(const struct tensor *t, enum ggml_type type)
{
    if (t->rank < 2)
        return GGML_F32;
    return t->shape[1] % ggml_type_block(type).elements ? GGML_Q8_0 : type;
}

static const char *const names[][2] = {
    {"self_attn.q_proj", "attn_q"},       {"self_attn.k_proj", "attn_k"},
    {"self_attn.v_proj", "attn_v"},       {"self_attn.o_proj", "attn_output"},
    {"mlp.gate_proj", "ffn_gate"},        {"mlp.up_proj", "ffn_up"},
    {"mlp.down_proj", "ffn_down"},        {"input_layernorm", "attn_norm"},
    {"model.embed_tokens", "token_embd"}, {"post_attention_layernorm", "ffn_norm"},
    {"model.norm", "output_norm"},        {"lm_head", "output"},
};

static void gguf_name(const char *name, char *out, size_t cap)
{
    int layer = -1, at = 0;
    if (sscanf(name, "model.layers.%d.%n", &layer, &at) == 1)
        name += at;
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        const size_t n = strlen(names[i][0]);
        if (strncmp(name, names[i][0], n) != 0 || strcmp(name + n, ".weight") != 0)
            continue;
        if (layer < 0)
            snprintf(out, cap, "%s.weight", names[i][1]);
        else
            snprintf(out, cap, "blk.%d.%s.weight", layer, names[i][1]);
        return;
    }
    folder_must(false, name);
}

/* Rows of queries and keys in GGUF's order: the two that RoPE turns together stand side by side. */
static size_t row_of(const struct tensor *t, const struct model_config *c, size_t row)
{
    const size_t dim = (size_t)c->head_dim, in = row % dim;
    if (!strstr(t->name, "q_proj") && !strstr(t->name, "k_proj"))
        return row;
    return row - in + in % 2 * (dim / 2) + in / 2;
}

static void put_data(struct buf *b, const struct tensor *t, const struct model_config *c,
                     enum ggml_type type)
{
    const size_t cols = t->shape[t->rank - 1], rows = t->elements / cols;
    float *v = folder_floats(t);
    if (type == GGML_F32)
        buf_append(b, v, t->elements * sizeof *v);
    for (size_t r = 0; type != GGML_F32 && r < rows; r++)
        for (size_t at = 0; at < cols; at += ggml_type_block(type).elements)
            block_of(type)(b, v + row_of(t, c, r) * cols + at);
    put_pad(b, ALIGNMENT);
    free(v);
}

/* ---- the file ---- */

static void put_metadata(struct buf *b, const struct model_config *c)
{
    const struct {
        const char *key;
        int32_t value;
    } counts[] = {
        {"llama.context_length", c->max_context},
        {"llama.embedding_length", c->hidden},
        {"llama.block_count", c->layers},
        {"llama.feed_forward_length", c->ffn},
        {"llama.attention.head_count", c->heads},
        {"llama.attention.head_count_kv", c->kv_heads},
        {"llama.attention.key_length", c->head_dim},
        {"llama.attention.value_length", c->head_dim},
        {"llama.rope.dimension_count", c->ropes[0].dim},
    };
    const float theta = (float)c->ropes[0].theta;
    put_key(b, "general.architecture", VALUE_STRING);
    put_str(b, "llama");
    for (size_t i = 0; i < sizeof counts / sizeof counts[0]; i++) {
        put_key(b, counts[i].key, VALUE_U32);
        put_uint(b, (uint64_t)counts[i].value, 4);
    }
    put_key(b, "llama.attention.layer_norm_rms_epsilon", VALUE_F32);
    buf_append(b, &c->norm_eps, sizeof c->norm_eps);
    put_key(b, "llama.rope.freq_base", VALUE_F32);
    buf_append(b, &theta, sizeof theta);
}

#define PAIRS 12 /* of put_metadata() */

static void put_tensors(struct buf *head, struct buf *data, const struct checkpoint *c,
                        const struct model_config *config, enum ggml_type type)
{
    for (size_t i = 0; i < checkpoint_count(c); i++) {
        const struct tensor *t = checkpoint_at(c, i);
        const enum ggml_type own = type_of(t, type);
        const uint64_t dims[2] = {t->shape[t->rank - 1], t->shape[0]};
        char name[128];
        gguf_name(t->name, name, sizeof name);
        put_tensor(head, name, dims, (uint32_t)t->rank, own, data->len);
        put_data(data, t, config, own);
    }
}

void gguf_copy_make(const char *golden, enum ggml_type type, char path[FOLDER_PATH])
{
    static struct model_config config; /* too large for a stack */
    struct generation_defaults defaults;
    struct checkpoint *c;
    struct buf head = {0}, data = {0};
    struct error err = {0};
    folder_must(model_config_read(golden, &config, &defaults, &err) == ST_OK, err.text);
    folder_must(checkpoint_open(golden, &c, &err) == ST_OK, err.text);
    put_head(&head, 3, checkpoint_count(c), PAIRS);
    put_metadata(&head, &config);
    put_tensors(&head, &data, c, &config, type);
    put_pad(&head, ALIGNMENT);
    strcpy(path, "/tmp/baton-model-XXXXXX.gguf");
    const int fd = mkstemps(path, 5);
    FILE *f = fd < 0 ? NULL : fdopen(fd, "wb");
    folder_must(f && !head.failed && !data.failed, "no file under /tmp");
    folder_must(fwrite(head.data, 1, head.len, f) == head.len, path);
    folder_must(fwrite(data.data, 1, data.len, f) == data.len && fclose(f) == 0, path);
    checkpoint_close(c);
    buf_fini(&head);
    buf_fini(&data);
}
