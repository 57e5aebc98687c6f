/* Made checkpoints load, are what they say, and are the base that faults are planted in. */
#include <criterion/criterion.h>

#include <dirent.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/json.h"
#include "model/inspect.h"
#include "model/make.h"
#include "tests/model/model_rig.h"

static char folder[64];

static void make_folder(void)
{
    strcpy(folder, "/tmp/baton-make-XXXXXX");
    cr_assert_not_null(mkdtemp(folder));
}

static void empty_folder(void)
{
    char path[512];
    DIR *d = opendir(folder);
    for (const struct dirent *e; d && (e = readdir(d));) {
        snprintf(path, sizeof path, "%s/%s", folder, e->d_name);
        if (e->d_name[0] != '.')
            unlink(path);
    }
    if (d)
        closedir(d);
}

static void remove_folder(void)
{
    empty_folder();
    rmdir(folder);
}

static void make_tiny(enum dtype dtype, uint64_t seed, uint64_t shard_bytes)
{
    struct error err = {0};
    struct model_make_args args = {.shape = "tiny-llama-test",
                                   .out = folder,
                                   .dtype = dtype,
                                   .seed = seed,
                                   .shard_bytes = shard_bytes};
    cr_assert_eq(model_make(&args, &err), ST_OK, "%s", err.text);
}

static enum status load(struct model **m, struct team *team, struct error *err)
{
    struct model_load_args args = {.dir = folder,
                                   .ops = ops_at(1) ? ops_at(1) : ops_ref(),
                                   .team = team,
                                   .max_batch_tokens = 64,
                                   .max_logits_rows = 4};
    *m = NULL;
    return model_load(&args, m, err);
}

Test(make, shapes_have_the_published_sizes)
{
    static const struct {
        const char *name;
        uint64_t parameters;
    } known[] = {
        {"llama-3.2-1b", 1235814400},   {"llama-3.2-3b", 3212749824},
        {"llama-3.1-8b", 8030261248},   {"smollm2-135m", 134515008},
        {"smollm2-360m", 361821120},    {"smollm2-1.7b", 1711376384},
        {"tinyllama-1.1b", 1100048384}, {"llama-2-7b", 6738415616},
        {"smollm3-3b", 3075098624},     {"mistral-7b", 7241732096},
        {"qwen2.5-0.5b", 494032768},    {"qwen2.5-7b", 7615616512},
        {"qwen3-0.6b", 596049920},      {"qwen3-30b-a3b", 30532122624},
        {"gemma-2-2b", 2614341888},     {"gemma-3-1b", 999885952},
        {"phi-3-mini", 3821079552},     {"olmo-2-1b", 1484916736},
        {"olmoe-1b-7b", 6919161856},    {"mixtral-8x7b", 46702792704},
        {"gpt-oss-20b", 20914757184},   {"deepseek-v2-lite", 15706484224},
    };
    struct model_config c;
    size_t seen = 0;
    const char *name;
    for (size_t i = 0; (name = model_make_shape(i, &c)); i++) {
        for (size_t k = 0; k < sizeof known / sizeof known[0]; k++) {
            if (strcmp(known[k].name, name) == 0) {
                cr_assert_eq(model_config_parameters(&c), known[k].parameters, "%s: %llu", name,
                             (unsigned long long)model_config_parameters(&c));
                seen++;
            }
        }
    }
    cr_assert_eq(seen, sizeof known / sizeof known[0]);
}

Test(make, every_dtype_loads_and_runs, .init = make_folder, .fini = remove_folder)
{
    for (int d = 0; d < DTYPE_COUNT; d++) {
        make_tiny((enum dtype)d, 3, 0);
        struct rig *r = rig_open(&(struct rig_args){folder, ops_ref(), 1, DTYPE_F32, 16});
        struct sequence s;
        const int32_t ids[] = {256, 72, 105, 33};
        float logits[512];
        cr_assert_eq(model_get_config(r->model)->dtype, (enum dtype)d);
        rig_begin(r, &s, ids);
        cr_assert_eq(rig_step(r, &(struct feed){&s, 4, WANT_LAST}, 1, logits), 1);
        for (int i = 0; i < 512; i++)
            cr_assert(isfinite(logits[i]));
        rig_close(r);
        empty_folder();
    }
}

/* Experts one by one, stacks, fused projections, heads cut out of one matrix: each is written once,
 * and wholly. */
Test(make, every_kind_of_tensor_loads_and_runs, .init = make_folder, .fini = remove_folder)
{
    static const char *const shapes[] = {"tiny-moe-test", "tiny-sinks-test", "tiny-latent-test",
                                         "tiny-fused-test"};
    for (size_t i = 0; i < sizeof shapes / sizeof shapes[0]; i++) {
        struct model_make_args args = {
            .shape = shapes[i], .out = folder, .dtype = DTYPE_BF16, .shard_bytes = 60000};
        struct error err = {0};
        struct model_facts facts;
        cr_assert_eq(model_make(&args, &err), ST_OK, "%s", err.text);
        cr_assert_eq(model_inspect(folder, &facts, &err), ST_OK);
        cr_assert(facts.n_problems == 0 && facts.tensors_unused == 0, "%s: %s", shapes[i],
                  facts.problems[0]);
        cr_assert_eq(facts.weight_bytes, 2 * facts.parameters, "%s", shapes[i]);
        struct rig *r = rig_open(&(struct rig_args){folder, ops_ref(), 1, DTYPE_F32, 16});
        struct sequence s;
        const int32_t ids[] = {256, 72, 105, 33};
        float logits[512];
        rig_begin(r, &s, ids);
        cr_assert_eq(rig_step(r, &(struct feed){&s, 4, WANT_LAST}, 1, logits), 1);
        for (int k = 0; k < 512; k++)
            cr_assert(isfinite(logits[k]), "%s", shapes[i]);
        rig_close(r);
        empty_folder();
    }
}

Test(make, shards_hold_the_same_model, .init = make_folder, .fini = remove_folder)
{
    struct team *team = team_create(1, false, false);
    struct model *m;
    struct error err = {0};
    struct fingerprint f[4];
    const struct {
        enum dtype dtype;
        uint64_t seed, shard;
    } variants[4] = {
        {DTYPE_BF16, 1, 0}, {DTYPE_BF16, 1, 30000}, {DTYPE_BF16, 2, 0}, {DTYPE_F16, 1, 0}};
    for (int i = 0; i < 4; i++) {
        make_tiny(variants[i].dtype, variants[i].seed, variants[i].shard);
        cr_assert_eq(load(&m, team, &err), ST_OK, "%s", err.text);
        f[i] = model_fingerprint(m);
        struct model_facts facts;
        cr_assert_eq(model_inspect(folder, &facts, &err), ST_OK);
        cr_assert_eq(facts.files > 1, variants[i].shard != 0, "%llu files",
                     (unsigned long long)facts.files);
        cr_assert_eq(facts.weight_bytes, model_weight_bytes(m));
        cr_assert_eq(facts.weight_bytes, 2 * facts.parameters);
        model_free(m);
        empty_folder();
    }
    team_destroy(team);
    cr_assert_eq(memcmp(&f[0], &f[1], sizeof f[0]), 0, "sharding is not part of the fingerprint");
    cr_assert_neq(memcmp(&f[0], &f[2], sizeof f[0]), 0, "weights are");
    cr_assert_neq(memcmp(&f[0], &f[3], sizeof f[0]), 0, "types are");
}

Test(make, refuses, .init = make_folder, .fini = remove_folder)
{
    struct error err = {0};
    struct model_make_args args = {.shape = "gpt-17", .out = folder, .dtype = DTYPE_BF16};
    cr_assert_eq(model_make(&args, &err), ST_NOT_FOUND);
    cr_assert_not_null(strstr(err.text, "llama-3.1-8b"), "%s", err.text);
    make_tiny(DTYPE_BF16, 0, 0);
    args.shape = "tiny-llama-test";
    cr_assert_eq(model_make(&args, &err), ST_INVALID);
    cr_assert_not_null(strstr(err.text, "not empty"));
    args.out = "/proc/nothing/here";
    cr_assert_eq(model_make(&args, &err), ST_IO);
}

Test(make, tokenizer_covers_the_vocabulary, .init = make_folder, .fini = remove_folder)
{
    char path[256];
    json *root;
    struct error err = {0};
    make_tiny(DTYPE_BF16, 0, 0);
    snprintf(path, sizeof path, "%s/tokenizer.json", folder);
    cr_assert_eq(json_read_file(path, 1 << 24, &root, &err), ST_OK, "%s", err.text);
    const json *vocab = json_get(json_get(root, "model"), "vocab");
    cr_assert_eq(json_count(vocab) + json_count(json_get(root, "added_tokens")), 512);
    cr_assert_eq(json_as_int(json_get(vocab, "A"), -1), 65);
    cr_assert_eq(json_as_int(json_get(vocab, "\xc4\xa0"), -1), 32);
    cr_assert_eq(json_as_int(json_get(vocab, "\xc5\x83"), -1), 0xad);
    json_free(root);
}

/* ---- inspect ---- */

Test(inspect, counts, .init = make_folder, .fini = remove_folder)
{
    struct model_facts f;
    struct error err = {0};
    make_tiny(DTYPE_BF16, 0, 0);
    cr_assert_eq(model_inspect(folder, &f, &err), ST_OK, "%s", err.text);
    cr_assert(f.has_config && f.has_checkpoint && f.n_problems == 0, "%s", f.problems[0]);
    cr_assert_eq(f.tensors, 2 + 9 * 2);
    cr_assert_eq(f.tensors_unused, 0);
    cr_assert(f.n_formats == 1 && f.formats[0].tensors == f.tensors, "%s", f.formats[0].name);
    cr_assert_eq(f.kv_bytes_per_token[DTYPE_BF16], 2 * 2 * 2 * 16 * 2);
    cr_assert_eq(f.kv_bytes_per_token[DTYPE_FP8], 2 * 2 * 2 * (16 + 2));
    cr_assert_eq(f.kv_bytes_per_token[DTYPE_INT8], 2 * 2 * 2 * (16 + 2));
    cr_assert_eq(f.kv_bytes_per_token[DTYPE_INT4], 2 * 2 * 2 * (8 + 4));
    cr_assert_eq(f.memory_at_max_context_bytes[DTYPE_F32], f.weight_bytes + 512 * 512);
    for (int d = 0; d < DTYPE_KV_COUNT; d++)
        cr_assert_eq(f.memory_at_max_context_bytes[d],
                     f.weight_bytes + 512 * f.kv_bytes_per_token[d], "%d", d);
    cr_assert(f.files_present.tokenizer_json && f.files_present.generation_config &&
              !f.files_present.chat_template_jinja);
    cr_assert_str_eq(model_rope_name(f.config.ropes[0].kind), "default");
}

Test(inspect, layers_that_slide_cost_their_window)
{
    static struct model_facts f;
    struct error err = {0};
    cr_assert_eq(model_inspect(BATON_SOURCE_DIR "/tests/model/goldens/gemma2", &f, &err), ST_OK);
    const uint64_t layer = 2 * (uint64_t)f.config.kv_heads * (uint64_t)f.config.head_dim * 2;
    cr_assert_eq(f.n_kv_kinds, 2);
    for (int k = 0; k < 2; k++) {
        const bool slides = f.kv_kinds[k].window > 0;
        cr_assert_eq(f.kv_kinds[k].window, slides ? 9 : 0);
        cr_assert_eq(f.kv_kinds[k].layers, slides ? 2 : 1);
        cr_assert_eq(f.kv_kinds[k].bytes_per_token[DTYPE_F16], (slides ? 2 : 1) * layer);
    }
    cr_assert_eq(f.kv_bytes_per_token[DTYPE_F16], 3 * layer);
    cr_assert_eq(f.kv_bytes_at_max_context[DTYPE_F16], layer * (256 + 2 * 9));
}

Test(inspect, says_what_is_wrong, .init = make_folder, .fini = remove_folder)
{
    struct model_facts f;
    struct error err = {0};
    cr_assert_eq(model_inspect("/nonexistent", &f, &err), ST_NOT_FOUND);
    cr_assert_eq(model_inspect(folder, &f, &err), ST_OK);
    cr_assert(!f.has_config && !f.has_checkpoint && f.n_problems == 3, "%d", f.n_problems);
}

/* Every kind of file that a tokenizer is loaded from will do. */
Test(inspect, looks_for_any_tokenizer, .init = make_folder, .fini = remove_folder)
{
    static const char *const names[] = {"tokenizer.model", "tiktoken.model", "x.tiktoken",
                                        "vocab.json", "other"};
    struct model_facts f;
    struct error err = {0};
    char from[256], to[256];
    make_tiny(DTYPE_BF16, 0, 0);
    snprintf(from, sizeof from, "%s/tokenizer.json", folder);
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        snprintf(to, sizeof to, "%s/%s", folder, names[i]);
        cr_assert_eq(rename(from, to), 0);
        cr_assert_eq(model_inspect(folder, &f, &err), ST_OK, "%s", err.text);
        cr_assert_eq(f.n_problems, i + 1 == sizeof names / sizeof names[0], "%s: %s", names[i],
                     f.problems[0]);
        strcpy(from, to);
    }
    cr_assert_not_null(strstr(f.problems[0], "no tokenizer"), "%s", f.problems[0]);
}

/* ---- planted faults ---- */

struct patch {
    const char *file, *from, *to; /* of equal length in a safetensors file */
    enum status st;
    const char *says;
};

static char *read_whole(const char *path, size_t *len)
{
    FILE *f = fopen(path, "rb");
    cr_assert_not_null(f, "%s", path);
    char *text = malloc(1 << 20);
    *len = fread(text, 1, (1 << 20) - 1, f);
    text[*len] = 0;
    fclose(f);
    return text;
}

static void write_whole(const char *path, const char *text, size_t len)
{
    FILE *f = fopen(path, "wb");
    cr_assert(f && fwrite(text, 1, len, f) == len);
    fclose(f);
}

static void apply(const struct patch *p)
{
    char path[256];
    size_t len, from = strlen(p->from), to = strlen(p->to);
    snprintf(path, sizeof path, "%s/%s", folder, p->file);
    char *text = read_whole(path, &len);
    char *at = memmem(text, len, p->from, from);
    cr_assert_not_null(at, "%s", p->from);
    memmove(at + to, at + from, len - (size_t)(at - text) - from);
    memcpy(at, p->to, to);
    write_whole(path, text, len - from + to);
    free(text);
}

Test(weights, refuses_what_does_not_match_the_config, .init = make_folder, .fini = remove_folder)
{
    static const struct patch patches[] = {
        {"config.json", "\"intermediate_size\":176", "\"intermediate_size\":175", ST_INVALID,
         "tensor model.layers.0.mlp.gate_proj.weight: expected shape [175, 64] by config.json, "
         "found "
         "[176, 64]"},
        {"config.json", "\"tie_word_embeddings\":true", "\"tie_word_embeddings\":false", ST_INVALID,
         "tensor lm_head.weight: expected [512, 64] by config.json, but missing"},
        {"config.json", "\"attention_bias\":false", "\"attention_bias\":true", ST_INVALID,
         "self_attn.q_proj.bias"},
        {"config.json", "\"num_hidden_layers\":2", "\"num_hidden_layers\":3", ST_INVALID,
         "model.layers.2."},
        {"config.json", "\"vocab_size\":512", "\"vocab_size\":511", ST_INVALID, "embed_tokens"},
        {"config.json", "LlamaForCausalLM", "MoonForCausalLM", ST_UNSUPPORTED, "MoonForCausalLM"},
        {"model.safetensors", "model.norm.weight", "model.norn.weight", ST_INVALID,
         "model.norm.weight: expected [64]"},
        {"model.safetensors", "[64,64]", "[4096] ", ST_INVALID, "q_proj.weight: expected shape"},
        {"model.safetensors", "\"BF16\"", "\"I16\" ", ST_UNSUPPORTED, "type I16 is not supported"},
        {"model.safetensors", "\"BF16\"", "\"F32\" ", ST_INVALID, "do not hold F32"},
    };
    struct team *team = team_create(1, false, false);
    struct model *m;
    for (size_t i = 0; i < sizeof patches / sizeof patches[0]; i++) {
        struct error err = {0};
        struct model_facts facts;
        make_tiny(DTYPE_BF16, 0, 0);
        apply(&patches[i]);
        cr_assert_eq(load(&m, team, &err), patches[i].st, "%s: %s", patches[i].to, err.text);
        cr_assert_not_null(strstr(err.text, patches[i].says), "%s says \"%s\"", patches[i].to,
                           err.text);
        cr_assert_not_null(strstr(err.text, folder), "%s", err.text);
        cr_assert_eq(model_inspect(folder, &facts, NULL), ST_OK);
        cr_assert_gt(facts.n_problems, 0, "%s", patches[i].to);
        empty_folder();
    }
    team_destroy(team);
}

/* NaN and infinity anywhere, in each type, are found and named. */
Test(weights, refuses_numbers_that_are_not_finite, .init = make_folder, .fini = remove_folder)
{
    struct team *team = team_create(1, false, false);
    for (int d = 0; d < DTYPE_COUNT; d++) {
        char path[256];
        size_t len;
        const size_t size = dtype_bytes((enum dtype)d);
        make_tiny((enum dtype)d, 0, 0);
        snprintf(path, sizeof path, "%s/model.safetensors", folder);
        char *bytes = read_whole(path, &len);
        const float bad[] = {NAN, INFINITY, -INFINITY};
        /* the last tensor is the last layer's down projection; its last element and one inside */
        const size_t back[] = {1, 5000, 2};
        for (int k = 0; k < 3; k++) {
            char saved[4], *at = bytes + len - back[k] * size;
            struct error err = {0};
            struct model *m;
            memcpy(saved, at, size);
            dtype_convert(at, (enum dtype)d, &bad[k], DTYPE_F32, 1);
            write_whole(path, bytes, len);
            cr_assert_eq(load(&m, team, &err), ST_INVALID, "%s %d", dtype_name((enum dtype)d), k);
            cr_assert_not_null(
                strstr(err.text, "tensor model.layers.1.mlp.down_proj.weight: element"), "%s",
                err.text);
            memcpy(at, saved, size);
        }
        free(bytes);
        empty_folder();
    }
    team_destroy(team);
}

Test(weights, refuses_a_cut_file, .init = make_folder, .fini = remove_folder)
{
    char path[256];
    size_t len;
    struct team *team = team_create(1, false, false);
    make_tiny(DTYPE_BF16, 0, 0);
    snprintf(path, sizeof path, "%s/model.safetensors", folder);
    char *bytes = read_whole(path, &len);
    for (size_t keep = 0; keep < len; keep += keep < 3000 ? 97 : 40009) {
        struct error err = {0};
        struct model *m;
        write_whole(path, bytes, keep);
        cr_assert_eq(load(&m, team, &err), ST_INVALID, "%zu bytes", keep);
    }
    free(bytes);
    team_destroy(team);
}

/* Nothing aligns the data of a file: weights at odd addresses give the same bits. */
Test(weights, may_lie_at_odd_addresses, .init = make_folder, .fini = remove_folder)
{
    const int32_t ids[] = {256, 72, 105, 33, 400};
    char path[256];
    snprintf(path, sizeof path, "%s/model.safetensors", folder);
    for (int d = 0; d < DTYPE_COUNT; d++) {
        const struct ops *ops;
        static float logits[2][8][512];
        make_tiny((enum dtype)d, 0, 0);
        for (int shift = 0; shift < 2; shift++) {
            for (int i = 0; i < 8 && (ops = ops_at(i)); i++) {
                struct rig *r = rig_open(&(struct rig_args){folder, ops, 2, DTYPE_BF16, 16});
                struct sequence s;
                rig_begin(r, &s, ids);
                rig_step(r, &(struct feed){&s, 4, WANT_NONE}, 1, logits[shift][i]);
                rig_step(r, &(struct feed){&s, 1, WANT_LAST}, 1, logits[shift][i]);
                rig_close(r);
            }
            size_t len;
            char *bytes = read_whole(path, &len);
            memmove(bytes + 10, bytes + 9, len - 9);
            bytes[9] = ' '; /* after the brace */
            bytes[0]++;
            write_whole(path, bytes, len + 1);
            free(bytes);
        }
        cr_assert_eq(memcmp(logits[0], logits[1], sizeof logits[0]), 0, "%s",
                     dtype_name((enum dtype)d));
        empty_folder();
    }
}
