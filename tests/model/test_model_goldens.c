/* Logits of transformers (tools/goldens/model_goldens.py) against every body of the op table, in
 * fp32. */
#include <criterion/criterion.h>

#include <dirent.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/json.h"
#include "tests/model/model_rig.h"

#define TOLERANCE 2e-3
#define IDS_MAX 64

struct golden {
    char dir[1024];
    int32_t ids[IDS_MAX], rows[IDS_MAX];
    int32_t n, n_rows, prompt, vocab;
    float *logits; /* [n_rows][vocab] */
};

static struct golden golden_read(const char *name)
{
    struct golden g = {0};
    char file[128];
    json *root = NULL;
    struct error err = {0};
    snprintf(file, sizeof file, "%s.json", name);
    cr_assert_eq(json_read_file(rig_golden_path(file), 1 << 20, &root, &err), ST_OK, "%s",
                 err.text);
    snprintf(g.dir, sizeof g.dir, BATON_SOURCE_DIR "/%s", json_as_str(json_get(root, "model"), ""));
    g.n = (int32_t)json_count(json_get(root, "ids"));
    g.n_rows = (int32_t)json_count(json_get(root, "rows"));
    cr_assert(g.n > 0 && g.n <= IDS_MAX && g.n_rows <= g.n);
    for (int32_t i = 0; i < g.n; i++)
        g.ids[i] = (int32_t)json_as_int(json_at(json_get(root, "ids"), (size_t)i), -1);
    for (int32_t i = 0; i < g.n_rows; i++)
        g.rows[i] = (int32_t)json_as_int(json_at(json_get(root, "rows"), (size_t)i), -1);
    g.prompt = (int32_t)json_as_int(json_get(root, "prompt_tokens"), 0);
    g.vocab = (int32_t)json_as_int(json_get(root, "vocab"), 0);
    json_free(root);

    size_t count = (size_t)g.n_rows * (size_t)g.vocab;
    g.logits = malloc(count * sizeof *g.logits);
    snprintf(file, sizeof file, "%s.bin", name);
    FILE *f = fopen(rig_golden_path(file), "rb");
    cr_assert(f && fread(g.logits, sizeof *g.logits, count, f) == count && fgetc(f) == EOF);
    fclose(f);
    return g;
}

/* Prefill in one step, then a step per token, as it is served. */
static void compare(const struct golden *g, const struct ops *ops, int threads)
{
    struct rig *r = rig_open(&(struct rig_args){g->dir, ops, threads, DTYPE_F32, 16});
    struct sequence s;
    cr_assert_eq(r->vocab, g->vocab);
    float *got = calloc((size_t)g->n * (size_t)g->vocab, sizeof *got);
    rig_begin(r, &s, g->ids);
    s.is_long = model_is_long(r->model, g->prompt);
    rig_step(r, &(struct feed){&s, g->prompt, WANT_ALL}, 1, got);
    for (int32_t i = g->prompt; i < g->n; i++)
        rig_step(r, &(struct feed){&s, 1, WANT_LAST}, 1, got + (size_t)i * (size_t)g->vocab);

    double difference = 0, reference = 0;
    for (int32_t i = 0; i < g->n_rows; i++) {
        const float *mine = got + (size_t)g->rows[i] * (size_t)g->vocab;
        const float *theirs = g->logits + (size_t)i * (size_t)g->vocab;
        for (int32_t k = 0; k < g->vocab; k++) {
            cr_assert(isfinite(mine[k]), "%s %s row %d", g->dir, ops->name, i);
            difference = fmax(difference, fabs((double)mine[k] - (double)theirs[k]));
            reference = fmax(reference, fabs((double)theirs[k]));
        }
        if (g->rows[i] >= g->prompt - 1 && g->rows[i] + 1 < g->n)
            cr_assert_eq(rig_argmax(r, mine), g->ids[g->rows[i] + 1], "%s %s: greedy token %d",
                         g->dir, ops->name, g->rows[i] + 1);
    }
    cr_log_info("%s %s: max difference / max reference = %.2e", g->dir, ops->name,
                difference / reference);
    cr_assert(difference <= TOLERANCE * reference,
              "%s %s: %.3e of the largest logit; was the model "
              "made anew without tools/goldens/model_goldens.py?",
              g->dir, ops->name, difference / reference);
    free(got);
    rig_close(r);
}

/* ref has one way of doing things: nothing for a race detector, and it takes minutes there. */
#if defined(BATON_TSAN)
#define FIRST_BODY 1
#else
#define FIRST_BODY 0
#endif

static void compare_all(const char *name)
{
    struct golden g = golden_read(name);
    const struct ops *ops;
    for (int i = FIRST_BODY; (ops = ops_at(i)); i++)
        compare(&g, ops, 1 + i % 2);
    free(g.logits);
}

Test(goldens, llama3_rope_gqa_untied_bf16)
{
    compare_all("llama3-gqa");
}

Test(goldens, biases_tied_head_dim_fp16)
{
    compare_all("bias-tied");
}

Test(goldens, embedded_model, .timeout = 120)
{
    if (access(BATON_SOURCE_DIR "/models/tiny/model.safetensors", R_OK) != 0 ||
        access(rig_golden_path("tiny.json"), R_OK) != 0)
        cr_skip_test("models/tiny or its golden is not there");
    compare_all("tiny");
}

static void compare_folder(const char *folder, size_t at_least)
{
    char names[64][64];
    size_t n = 0;
    DIR *dir = opendir(rig_golden_path(folder));
    cr_assert(dir != NULL);
    for (const struct dirent *e; (e = readdir(dir));) {
        size_t len = strlen(e->d_name);
        if (len > 5 && len < 48 && strcmp(e->d_name + len - 5, ".json") == 0 && n < 64)
            snprintf(names[n++], sizeof names[0], "%s/%.*s", folder, (int)len - 5, e->d_name);
    }
    closedir(dir);
    cr_assert_geq(n, at_least);
    for (size_t i = 0; i < n; i++)
        compare_all(names[i]);
}

/* Some of the same models as GGUF files (tools/goldens/gguf_goldens.py): against the logits of what
 * they were converted from, or of the floats that their quantized numbers stand for. */
Test(goldens, gguf, .timeout = 240)
{
    compare_folder("gguf", 15);
}

/* Quantized in every way that safetensors come in (tools/goldens/quant_goldens.py): against the
 * logits of the same numbers as floats. */
Test(goldens, quantized, .timeout = 240)
{
    compare_folder("quant", 10);
}

/* One of each architecture (tools/goldens/arch_goldens.py). */
#define ARCHITECTURE(name, file)                                                                   \
    Test(architectures, name, .timeout = 120)                                                      \
    {                                                                                              \
        compare_all(file);                                                                         \
    }

ARCHITECTURE(mistral, "mistral")
ARCHITECTURE(qwen2, "qwen2")
ARCHITECTURE(qwen3, "qwen3")
ARCHITECTURE(smollm3, "smollm3")
ARCHITECTURE(olmo2, "olmo2")
ARCHITECTURE(olmo3, "olmo3")
ARCHITECTURE(granite, "granite")
ARCHITECTURE(phi3, "phi3")
ARCHITECTURE(phi3_longrope, "phi3-longrope")
ARCHITECTURE(phi3_longrope_long, "phi3-longrope-long")
ARCHITECTURE(dynamic_rope, "dynamic-rope")
ARCHITECTURE(gemma, "gemma")
ARCHITECTURE(gemma2, "gemma2")
ARCHITECTURE(gemma3, "gemma3")
ARCHITECTURE(mixtral, "mixtral")
ARCHITECTURE(qwen2_moe, "qwen2-moe")
ARCHITECTURE(qwen3_moe, "qwen3-moe")
ARCHITECTURE(olmoe, "olmoe")
ARCHITECTURE(granite_moe, "granite-moe")
ARCHITECTURE(granite_moe_shared, "granite-moe-shared")
ARCHITECTURE(gpt_oss, "gpt-oss")
ARCHITECTURE(deepseek_v2, "deepseek-v2")
ARCHITECTURE(deepseek_v3, "deepseek-v3")
ARCHITECTURE(jetmoe, "jetmoe")
ARCHITECTURE(hunyuan, "hunyuan")
ARCHITECTURE(hunyuan_moe, "hunyuan-moe")
ARCHITECTURE(hunyuan_cla, "hunyuan-cla")
/* As published files have them: older keys, names of a text model inside a larger one. */
ARCHITECTURE(gemma3_nested, "gemma3-nested")
ARCHITECTURE(mistral3_nested, "mistral3-nested")
ARCHITECTURE(phi3_su, "phi3-su")
ARCHITECTURE(deepseek_v3_hub, "deepseek-v3-hub")
