/* 2,000 random strings through every tokenizer there is: hashes of what the reference libraries
 * gave (make_frozen.py). Published tokenizers whose files are absent are passed over. */
#include <criterion/criterion.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/json.h"
#include "support/read_file.h"
#include "tokenizer/tokenizer.h"

#define GOLDENS BATON_SOURCE_DIR "/tests/tokenizer/goldens/"
#define DATA BATON_SOURCE_DIR "/../shared/data/tokenizers/"

static const struct {
    const char *name, *path;
    bool with_specials; /* hashed as with special tokens, -1, without */
} tokenizers[] = {
    {"base_bytes", GOLDENS "base_bytes.json", true},
    {"base_sp", GOLDENS "base_sp.json", true},
    {"base_unigram", GOLDENS "base_unigram.json", true},
    {"base_wordpiece", GOLDENS "base_wordpiece.json", true},
    {"base_suffix", GOLDENS "base_suffix.json", true},
    {"sp_llama", GOLDENS "load/sp_llama", false},
    {"sp_bpe_user", GOLDENS "load/sp_bpe_user", false},
    {"sp_bpe_suffix", GOLDENS "load/sp_bpe_suffix", false},
    {"sp_unigram", GOLDENS "load/sp_unigram", false},
    {"sp_unigram_user", GOLDENS "load/sp_unigram_user", false},
    {"sp_unigram_bare", GOLDENS "load/sp_unigram_bare", false},
    {"gguf_llama", GOLDENS "load/gguf_llama", false},
    {"gguf_gpt2", GOLDENS "load/gguf_gpt2", false},
    {"gguf_bert", GOLDENS "load/gguf_bert", false},
    {"tiktoken", GOLDENS "load/tiktoken", false},
    {"minimind", DATA "minimind", true},
    {"tinyllama", DATA "tinyllama", true},
    {"roberta-base", DATA "roberta-base", true},
    {"qwen2", DATA "qwen2", true},
};

static struct tokenizer *load(const char *path)
{
    struct tokenizer *t = NULL;
    struct error err = {0};
    size_t n = strlen(path);
    if (strcmp(path + n - 5, ".json")) {
        cr_assert_eq(tokenizer_load(path, &t, &err), ST_OK, "%s", err.text);
        return t;
    }
    struct buf text = read_file("%s", path);
    cr_assert_eq(tokenizer_load_text(text.data, text.len, NULL, 0, &t, &err), ST_OK, "%s",
                 err.text);
    buf_fini(&text);
    return t;
}

static uint32_t hash_ids(const struct ids *ids)
{
    uint32_t h = 0x811c9dc5;
    for (size_t i = 0; i < ids->n; i++)
        for (int shift = 0; shift < 32; shift += 8)
            h = (h ^ ((uint32_t)ids->v[i] >> shift & 255)) * 0x01000193;
    return h;
}

static void run_tokenizer(size_t k, const json *texts)
{
    struct buf want = read_file(GOLDENS "frozen/%s.bin", tokenizers[k].name);
    struct tokenizer *t = load(tokenizers[k].path);
    cr_assert_eq(want.len, 4 * json_count(texts));
    for (size_t i = 0; i < json_count(texts); i++) {
        const char *s = json_as_str(json_at(texts, i), "");
        size_t len = json_str_len(json_at(texts, i));
        struct ids ids = {0};
        if (tokenizers[k].with_specials) {
            cr_assert_eq(tokenizer_encode(t, s, len, TOKENIZE_ADD_SPECIAL | TOKENIZE_PARSE_SPECIAL,
                                          &ids, NULL),
                         ST_OK);
            ids_push(&ids, -1);
        }
        cr_assert_eq(tokenizer_encode(t, s, len, TOKENIZE_PLAIN, &ids, NULL), ST_OK);
        uint32_t h;
        memcpy(&h, want.data + 4 * i, 4);
        cr_assert_eq(hash_ids(&ids), h, "%s: text %zu: \"%s\"", tokenizers[k].name, i, s);
        ids_fini(&ids);
    }
    tokenizer_free(t);
    buf_fini(&want);
}

Test(tokenizer_frozen, random_strings, .timeout = 300)
{
    json *texts = NULL;
    struct error err = {0};
    cr_assert_eq(json_read_file(GOLDENS "frozen/texts.json", 4 << 20, &texts, &err), ST_OK, "%s",
                 err.text);
    cr_assert_eq(json_count(texts), 2000);
    for (size_t k = 0; k < sizeof tokenizers / sizeof tokenizers[0]; k++)
        if (access(tokenizers[k].path, R_OK) == 0)
            run_tokenizer(k, texts);
    json_free(texts);
}
