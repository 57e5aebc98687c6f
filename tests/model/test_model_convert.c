/* What weights are converted to that are not computed with as they lie there. */
#include <criterion/criterion.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "model/model_impl.h"

enum { VOCAB = 66000, HIDDEN = 64, HEADS = 2, FFN = 32 };

/* The first is of F8_E5M2, all ones, and large enough for what is converted not to stay in fp32;
 * the others are of F64 and hold `value` plus 2^-20 times an element's place. */
static const struct tensor_row {
    const char *name;
    int rows, cols;
    double value;
} tensors[] = {
    {"model.embed_tokens.weight", VOCAB, HIDDEN, 1},
    {"model.layers.0.input_layernorm.weight", HIDDEN, 0, 1},
    {"model.layers.0.mlp.down_proj.weight", HIDDEN, FFN, 100000},
    {"model.layers.0.mlp.gate_proj.weight", FFN, HIDDEN, 0.125},
    {"model.layers.0.mlp.up_proj.weight", FFN, HIDDEN, 0.125},
    {"model.layers.0.post_attention_layernorm.weight", HIDDEN, 0, 1},
    {"model.layers.0.self_attn.k_proj.weight", HIDDEN, HIDDEN, 0.25},
    {"model.layers.0.self_attn.o_proj.weight", HIDDEN, HIDDEN, 0.25},
    {"model.layers.0.self_attn.q_proj.weight", HIDDEN, HIDDEN, 0.25},
    {"model.layers.0.self_attn.v_proj.weight", HIDDEN, HIDDEN, 0.25},
    {"model.norm.weight", HIDDEN, 0, 1},
};
#define TENSORS (sizeof tensors / sizeof tensors[0])

static char folder[64];

static double element(const struct tensor_row *t, size_t i)
{
    return t == tensors ? 1 : t->value + (double)i * 0x1p-20;
}

static size_t count(const struct tensor_row *t)
{
    return (size_t)t->rows * (size_t)(t->cols ? t->cols : 1);
}

static FILE *create(const char *name)
{
    char path[256];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *f = fopen(path, "wb");
    cr_assert_not_null(f);
    return f;
}

static void make_folder(void)
{
    char head[4096] = "{";
    size_t n = 1, at = 0;
    strcpy(folder, "/tmp/baton-convert-XXXXXX");
    cr_assert_not_null(mkdtemp(folder));
    FILE *f = create("config.json");
    fprintf(f,
            "{\"architectures\": [\"LlamaForCausalLM\"], \"vocab_size\": %d, \"hidden_size\": %d, "
            "\"intermediate_size\": %d, \"num_hidden_layers\": 1, \"num_attention_heads\": %d, "
            "\"tie_word_embeddings\": true}",
            VOCAB, HIDDEN, FFN, HEADS);
    fclose(f);
    for (size_t i = 0; i < TENSORS; i++) {
        const struct tensor_row *t = &tensors[i];
        size_t end = at + (i ? 8 : 1) * count(t);
        char shape[32];
        snprintf(shape, sizeof shape, t->cols ? "%d, %d" : "%d", t->rows, t->cols);
        n += (size_t)snprintf(head + n, sizeof head - n,
                              "%s\"%s\": {\"dtype\": \"%s\", \"shape\": [%s], "
                              "\"data_offsets\": [%zu, %zu]}",
                              i ? ", " : "", t->name, i ? "F64" : "F8_E5M2", shape, at, end);
        at = end;
    }
    n += (size_t)snprintf(head + n, sizeof head - n, "}");
    uint64_t len = n;
    f = create("model.safetensors");
    fwrite(&len, sizeof len, 1, f);
    fwrite(head, 1, n, f);
    for (size_t k = 0; k < count(&tensors[0]); k++)
        fputc(0x3c, f);
    for (size_t i = 1; i < TENSORS; i++)
        for (size_t k = 0; k < count(&tensors[i]); k++) {
            double v = element(&tensors[i], k);
            fwrite(&v, sizeof v, 1, f);
        }
    fclose(f);
}

static void remove_folder(void)
{
    static const char *const names[] = {"config.json", "model.safetensors"};
    char path[256];
    for (size_t i = 0; i < 2; i++) {
        snprintf(path, sizeof path, "%s/%s", folder, names[i]);
        unlink(path);
    }
    rmdir(folder);
}

static void check(const struct matrix *m, const struct tensor_row *t, enum dtype dtype)
{
    cr_assert_eq(m->dtype, dtype, "%s: %d", t->name, m->dtype);
    for (size_t i = 0; i < count(t); i++) {
        float source = (float)element(t, i), stored, got;
        char narrow[4];
        dtype_convert(narrow, dtype, &source, DTYPE_F32, 1);
        dtype_convert(&stored, DTYPE_F32, narrow, dtype, 1);
        dtype_convert(&got, DTYPE_F32, (const char *)m->data + i * dtype_bytes(dtype), dtype, 1);
        cr_assert_eq(got, stored, "%s: element %zu", t->name, i);
    }
}

/* Into fp16, beyond its range into bf16; vectors stay what they are. */
Test(convert, types, .init = make_folder, .fini = remove_folder)
{
    struct team *team = team_create(2, false, false);
    struct model_load_args args = {.dir = folder,
                                   .ops = ops_at(1) ? ops_at(1) : ops_ref(),
                                   .team = team,
                                   .max_batch_tokens = 4,
                                   .max_logits_rows = 1};
    struct model *m = NULL;
    struct error err = {0};
    cr_assert_eq(model_load(&args, &m, &err), ST_OK, "%s", err.text);
    const struct layer_weights *l = &m->weights.layers[0];
    check(&m->weights.embed, &tensors[0], DTYPE_F16);
    check(&l->attn_norm, &tensors[1], DTYPE_F32);
    check(&l->mlp.down, &tensors[2], DTYPE_BF16);
    check(&l->q, &tensors[8], DTYPE_F16);
    model_free(m);
    team_destroy(team);
}
