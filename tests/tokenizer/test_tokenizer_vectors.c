/* Published vectors over real tokenizer files; each test skips, visibly, where its data is absent.
 */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/json.h"
#include "support/read_file.h"
#include "tokenizer/tokenizer.h"

#define DATA BATON_SOURCE_DIR "/../shared/data/"

static struct tokenizer *load(const char *folder)
{
    char path[512];
    struct tokenizer *t = NULL;
    struct error err = {0};
    snprintf(path, sizeof(path), DATA "%s", folder);
    if (access(path, R_OK))
        cr_skip_test("%s is absent", path);
    cr_assert_eq(tokenizer_load(path, &t, &err), ST_OK, "%s", err.text);
    return t;
}

static json *read_json(const char *name)
{
    char path[512];
    json *v = NULL;
    struct error err = {0};
    snprintf(path, sizeof(path), DATA "%s", name);
    if (access(path, R_OK))
        cr_skip_test("%s is absent", path);
    cr_assert_eq(json_read_file(path, 64 << 20, &v, &err), ST_OK, "%s", err.text);
    return v;
}

static void expect_ids(const struct tokenizer *t, const char *text, size_t len, const json *want)
{
    struct ids ids = {0};
    cr_assert_eq(
        tokenizer_encode(t, text, len, TOKENIZE_ADD_SPECIAL | TOKENIZE_PARSE_SPECIAL, &ids, NULL),
        ST_OK);
    cr_assert_eq(ids.n, json_count(want), "\"%.60s\": %zu ids, not %zu", text, ids.n,
                 json_count(want));
    for (size_t i = 0; i < ids.n; i++)
        cr_assert_eq(ids.v[i], json_as_int(json_at(want, i), -1), "\"%.60s\": id %zu is %d", text,
                     i, ids.v[i]);
    ids_fini(&ids);
}

static void expect_text(const struct tokenizer *t, const json *ids, bool skip, const json *want)
{
    struct ids a = {0};
    struct buf text = {0};
    for (size_t i = 0; i < json_count(ids); i++)
        ids_push(&a, (int32_t)json_as_int(json_at(ids, i), -1));
    tokenizer_decode(t, a.v, a.n, skip, &text);
    cr_assert_str_eq(text.data ? text.data : "", json_as_str(want, ""));
    ids_fini(&a);
    buf_fini(&text);
}

static void run_prompts(const char *folder, const char *goldens)
{
    struct tokenizer *t = load(folder);
    json *v = read_json(goldens);
    const json *cases = json_get(v, "cases");
    cr_assert_gt(json_count(cases), 0);
    for (size_t i = 0; i < json_count(cases); i++) {
        const json *prompt = json_get(json_at(cases, i), "prompt");
        if (json_kind_of(prompt) == JSON_STR)
            expect_ids(t, json_as_str(prompt, ""), json_str_len(prompt),
                       json_get(json_at(cases, i), "prompt_ids"));
    }
    cr_assert_eq(tokenizer_bos(t), 1);
    cr_assert_eq(tokenizer_eos(t), 2);
    json_free(v);
    tokenizer_free(t);
}

Test(tokenizer_vectors, stories260K_prompts)
{
    run_prompts("models/hf/stories260K", "models/goldens_stories260K.json");
}

Test(tokenizer_vectors, babyllama_prompts)
{
    run_prompts("models/hf/babyllama-tok105", "models/goldens_babyllama-tok105.json");
}

Test(tokenizer_vectors, llama2_cases)
{
    struct tokenizer *t = load("tokenizers/tinyllama");
    json *v = read_json("tokenizers/hf_expected/tokenizer_tests.json");
    const json *cases = json_get(v, "coreml-projects/Llama-2-7b-chat-coreml");
    cr_assert_gt(json_count(cases), 10);
    for (size_t i = 0; i < json_count(cases); i++) {
        const json *c = json_at(cases, i), *input = json_get(c, "input");
        const json *ids = json_get(json_get(c, "encoded"), "input_ids");
        expect_ids(t, json_as_str(input, ""), json_str_len(input), ids);
        expect_text(t, ids, false, json_get(c, "decoded_with_special"));
        expect_text(t, ids, true, json_get(c, "decoded_without_special"));
    }
    json_free(v);
    tokenizer_free(t);
}

Test(tokenizer_vectors, llama_document)
{
    struct tokenizer *t = load("tokenizers/tinyllama");
    json *v = read_json("tokenizers/hf_expected/llama_encoded.json");
    const json *text = json_get(v, "text"), *want = json_get(v, "token_ids");
    struct ids ids = {0};
    cr_assert_eq(
        tokenizer_encode(t, json_as_str(text, ""), json_str_len(text), TOKENIZE_PLAIN, &ids, NULL),
        ST_OK);
    size_t skip = json_count(want) == ids.n + 1; /* a leading BOS */
    cr_assert_eq(json_count(want), ids.n + skip);
    for (size_t i = 0; i < ids.n; i++)
        cr_assert_eq(ids.v[i], json_as_int(json_at(want, i + skip), -1), "id %zu", i);
    ids_fini(&ids);
    json_free(v);
    tokenizer_free(t);
}

/* RoBERTa's merges are GPT-2's, its ids are not: so the tokens are compared. */
Test(tokenizer_vectors, gpt2_document)
{
    struct tokenizer *t = load("tokenizers/roberta-base");
    json *v = read_json("tokenizers/hf_expected/gpt2_encoded_tokens.json");
    const json *text = json_get(v, "text"), *want = json_get(v, "bpe_tokens");
    if (json_count(want) < 10)
        want = json_get(v, "encoded_text");
    struct ids ids = {0};
    struct buf decoded = {0};
    cr_assert_eq(
        tokenizer_encode(t, json_as_str(text, ""), json_str_len(text), TOKENIZE_PLAIN, &ids, NULL),
        ST_OK);
    cr_assert_eq(ids.n, json_count(want), "%zu tokens, not %zu", ids.n, json_count(want));
    for (size_t i = 0; i < ids.n; i++)
        cr_assert_str_eq(tokenizer_token(t, ids.v[i]), json_as_str(json_at(want, i), ""));
    tokenizer_decode(t, ids.v, ids.n, false, &decoded);
    cr_assert_str_eq(decoded.data, json_as_str(text, ""));
    ids_fini(&ids);
    buf_fini(&decoded);
    json_free(v);
    tokenizer_free(t);
}

static struct buf read_data(const char *name)
{
    char path[512];
    snprintf(path, sizeof(path), DATA "%s", name);
    if (access(path, R_OK) != 0)
        cr_skip_test("%s is absent", path);
    return read_file("%s", path);
}

/* llama.cpp's files: texts between separator lines, and a line of ids for each. */
static void run_llamacpp(struct tokenizer *t, const char *base, bool bos)
{
    static const char mark[] = "\n__ggml_vocab_test__\n";
    char name[256];
    snprintf(name, sizeof(name), "tokenizers/llamacpp/%s.inp", base);
    struct buf in = read_data(name);
    snprintf(name, sizeof(name), "tokenizers/llamacpp/%s.out", base);
    struct buf out = read_data(name);
    const char *text = in.data, *line = out.data;
    size_t cases = 0;
    while (text && *line) {
        const char *end = strstr(text, mark);
        size_t len = end ? (size_t)(end - text) : strlen(text);
        struct ids ids = {0};
        cr_assert_eq(tokenizer_encode(t, text, len, bos ? TOKENIZE_ADD_SPECIAL : 0u, &ids, NULL),
                     ST_OK);
        size_t from = bos; /* the file leaves BOS out */
        char *next = (char *)(size_t)line;
        for (size_t i = from; i < ids.n; i++) {
            char *after;
            long want = strtol(next, &after, 10);
            cr_assert(after != next && !memchr(next, '\n', (size_t)(after - next)),
                      "case %zu: more than %zu ids", cases, i);
            cr_assert_eq(ids.v[i], want, "case %zu: id %zu is %d, not %ld", cases, i, ids.v[i],
                         want);
            next = after;
        }
        next += strspn(next, " ");
        cr_assert_eq(*next, '\n', "case %zu: fewer ids than there are", cases);
        line = next + 1;
        ids_fini(&ids);
        cases++;
        text = end ? end + sizeof(mark) - 1 : NULL;
    }
    cr_assert_gt(cases, 40, "%zu cases", cases);
    buf_fini(&in);
    buf_fini(&out);
    tokenizer_free(t);
}

Test(tokenizer_vectors, qwen2)
{
    run_llamacpp(load("tokenizers/qwen2"), "ggml-vocab-qwen2.gguf", false);
}

Test(tokenizer_vectors, deepseek_r1_qwen)
{
    run_llamacpp(load("tokenizers/qwen2"), "ggml-vocab-deepseek-r1-qwen.gguf", false);
}

Test(tokenizer_vectors, llama_spm)
{
    run_llamacpp(load("tokenizers/tinyllama"), "ggml-vocab-llama-spm.gguf", true);
}

/* The same vocabularies inside GGUF files. */
Test(tokenizer_vectors, llama_spm_gguf)
{
    run_llamacpp(load("tokenizers/llamacpp/ggml-vocab-llama-spm.gguf"), "ggml-vocab-llama-spm.gguf",
                 true);
}

Test(tokenizer_vectors, gpt2_gguf)
{
    run_llamacpp(load("tokenizers/llamacpp/ggml-vocab-gpt-2.gguf"), "ggml-vocab-gpt-2.gguf", false);
}

static void run_round_trip(const char *folder, const char *corpus)
{
    struct tokenizer *t = load(folder);
    struct buf text = read_data(corpus), back = {0}, stream = {0};
    struct ids ids = {0};
    cr_assert_eq(tokenizer_encode(t, text.data, text.len, TOKENIZE_PLAIN, &ids, NULL), ST_OK);
    tokenizer_decode(t, ids.v, ids.n, false, &back);
    cr_assert_eq(back.len, text.len);
    cr_assert(!memcmp(back.data, text.data, text.len));
    struct detok *d = detok_create(t, false);
    for (size_t i = 0; i < ids.n; i++)
        detok_push(d, ids.v[i], &stream);
    detok_flush(d, &stream);
    detok_destroy(d);
    cr_assert(stream.len == back.len && !memcmp(stream.data, back.data, back.len));
    ids_fini(&ids);
    buf_fini(&text);
    buf_fini(&back);
    buf_fini(&stream);
    tokenizer_free(t);
}

Test(tokenizer_vectors, round_trips, .timeout = 120)
{
    run_round_trip("tokenizers/tinyllama", "corpora/wagahaiwa_nekodearu.ja.txt");
    run_round_trip("tokenizers/roberta-base", "corpora/grimm.txt");
    run_round_trip("tokenizers/minimind", "corpora/wagahaiwa_nekodearu.ja.txt");
    run_round_trip("models/hf/stories260K", "corpora/tinyshakespeare.txt");
}
