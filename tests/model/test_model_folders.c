/* Folders that are not quite what their config.json says. */
#include <criterion/criterion.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "model/inspect.h"
#include "tests/model/model_rig.h"

static char folder[64];

static void make_folder(void)
{
    strcpy(folder, "/tmp/baton-folder-XXXXXX");
    cr_assert_not_null(mkdtemp(folder));
}

static void remove_folder(void)
{
    static const char *const names[] = {"config.json", "model.safetensors", "model.gguf"};
    char path[512];
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        snprintf(path, sizeof path, "%s/%s", folder, names[i]);
        unlink(path);
    }
    rmdir(folder);
}

static void link_file(const char *golden, const char *name)
{
    char path[512];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    cr_assert_eq(symlink(rig_golden_path(golden), path), 0);
}

/* A golden's config.json with one piece of its text replaced. */
static void copy_config(const char *golden, const char *from, const char *to)
{
    char path[512], text[8192] = "";
    FILE *f = fopen(rig_golden_path(golden), "rb");
    cr_assert(f && fread(text, 1, sizeof text - 1, f) > 0);
    fclose(f);
    char *at = strstr(text, from);
    cr_assert_not_null(at, "%s", from);
    snprintf(path, sizeof path, "%s/config.json", folder);
    f = fopen(path, "wb");
    cr_assert_not_null(f);
    fprintf(f, "%.*s%s%s", (int)(at - text), text, to, at + strlen(from));
    fclose(f);
}

static struct fingerprint check_loads(const char *architecture)
{
    struct error err = {0};
    struct team *team = team_create(1, false, false);
    struct model *m = NULL;
    struct model_facts facts;
    struct model_load_args args = {.dir = folder,
                                   .ops = ops_at(1) ? ops_at(1) : ops_ref(),
                                   .team = team,
                                   .max_batch_tokens = 8,
                                   .max_logits_rows = 1};
    cr_assert_eq(model_load(&args, &m, &err), ST_OK, "%s", err.text);
    cr_assert_str_eq(model_get_config(m)->architecture, architecture);
    struct fingerprint f = model_fingerprint(m);
    model_free(m);
    team_destroy(team);
    cr_assert_eq(model_inspect(folder, &facts, &err), ST_OK);
    for (int i = 0; i < facts.n_problems; i++)
        cr_assert_not_null(strstr(facts.problems[i], "tokenizer"), "%s", facts.problems[i]);
    return f;
}

/* transformers announces the layers of multi-token prediction and does not write them. */
Test(folders, multi_token_prediction_left_out, .init = make_folder, .fini = remove_folder)
{
    copy_config("deepseek-v3/config.json", "\"num_nextn_predict_layers\": 0",
                "\"num_nextn_predict_layers\": 1");
    link_file("deepseek-v3/model.safetensors", "model.safetensors");
    check_loads("DeepseekV3ForCausalLM");
}

/* Of a model inside a larger one, the outer word on tied embeddings counts where no head is. */
Test(folders, head_left_out_of_a_part, .init = make_folder, .fini = remove_folder)
{
    static const char text[] =
        "{\"architectures\": [\"Mistral3ForConditionalGeneration\"], \"tie_word_embeddings\": "
        "true, "
        "\"text_config\": {\"vocab_size\": 144, \"hidden_size\": 48, \"intermediate_size\": 56, "
        "\"num_hidden_layers\": 3, \"num_attention_heads\": 4, \"num_key_value_heads\": 2, "
        "\"head_dim\": 20, \"tie_word_embeddings\": false}}";
    char path[512];
    snprintf(path, sizeof path, "%s/config.json", folder);
    FILE *f = fopen(path, "wb");
    cr_assert(f && fputs(text, f) >= 0);
    fclose(f);
    link_file("gemma/model.safetensors", "model.safetensors");
    check_loads("Mistral3ForConditionalGeneration");
}

/* A GGUF file says more of its tensors than a config.json that lies beside it. */
Test(folders, gguf_beside_a_config, .init = make_folder, .fini = remove_folder)
{
    copy_config("qwen3/config.json", "{", "{");
    link_file("gguf/qwen3.gguf", "model.gguf");
    check_loads("Qwen3ForCausalLM");
}

Test(folders, a_folder_may_be_named_like_a_file, .init = make_folder, .fini = remove_folder)
{
    char name[sizeof folder];
    cr_assert_lt(snprintf(name, sizeof name, "%s.gguf", folder), (int)sizeof name);
    cr_assert_eq(rename(folder, name), 0);
    memcpy(folder, name, sizeof folder);
    copy_config("qwen3/config.json", "{", "{");
    link_file("qwen3/model.safetensors", "model.safetensors");
    check_loads("Qwen3ForCausalLM");
}

/* Two nodes whose models give other logits must not take each other for the same. */
Test(folders, all_that_changes_logits_is_in_the_fingerprint, .init = make_folder,
     .fini = remove_folder)
{
    link_file("granite/model.safetensors", "model.safetensors");
    copy_config("granite/config.json", "\"logits_scaling\": 2.0", "\"logits_scaling\": 2.0");
    struct fingerprint a = check_loads("GraniteForCausalLM");
    copy_config("granite/config.json", "\"logits_scaling\": 2.0", "\"logits_scaling\": 4.0");
    struct fingerprint b = check_loads("GraniteForCausalLM");
    cr_assert_neq(memcmp(&a, &b, sizeof a), 0);
}
