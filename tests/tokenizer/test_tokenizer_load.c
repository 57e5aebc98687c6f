/* Tokenizers of other files than tokenizer.json, against what the libraries whose files these are
 * make of the same texts (make_load_goldens.py), and against published encodings. */
#include <criterion/criterion.h>

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/json.h"
#include "base/utf8.h"
#include "formats/gguf.h"
#include "formats/gguf_maker.h"
#include "support/read_file.h"
#include "tokenizer/tokenizer.h"

#define GOLDENS BATON_SOURCE_DIR "/tests/tokenizer/goldens/load/"
#define DATA BATON_SOURCE_DIR "/../shared/data/"

static void expect_ids(const struct tokenizer *t, const char *name, const json *text,
                       const json *want)
{
    struct ids ids = {0};
    struct error err = {0};
    cr_assert_eq(
        tokenizer_encode(t, json_as_str(text, ""), json_str_len(text), TOKENIZE_PLAIN, &ids, &err),
        ST_OK, "%s: %s", name, err.text);
    cr_assert_eq(ids.n, json_count(want), "%s: \"%s\": %zu ids, not %zu", name,
                 json_as_str(text, ""), ids.n, json_count(want));
    for (size_t i = 0; i < ids.n; i++)
        cr_assert_eq(ids.v[i], json_as_int(json_at(want, i), -1), "%s: \"%s\": id %zu is %d", name,
                     json_as_str(text, ""), i, ids.v[i]);
    ids_fini(&ids);
}

/* The stream gives whole characters, each byte once, a prefix of the whole at every step. */
static void expect_stream(const struct tokenizer *t, const char *name, const json *list)
{
    struct buf whole = {0}, stream = {0};
    struct ids ids = {0};
    for (size_t i = 0; i < json_count(list); i++)
        ids_push(&ids, (int32_t)json_as_int(json_at(list, i), -1));
    tokenizer_decode(t, ids.v, ids.n, false, &whole);
    struct detok *d = detok_create(t, false);
    for (size_t i = 0; i < ids.n; i++) {
        detok_push(d, ids.v[i], &stream);
        cr_assert(!stream.len || utf8_valid(stream.data, stream.len), "%s: half a character", name);
        cr_assert(stream.len <= whole.len &&
                      (!stream.len || !memcmp(stream.data, whole.data, stream.len)),
                  "%s: no prefix after %zu ids", name, i + 1);
    }
    detok_flush(d, &stream);
    cr_assert_eq(stream.len, whole.len, "%s", name);
    detok_destroy(d);
    ids_fini(&ids);
    buf_fini(&whole);
    buf_fini(&stream);
}

static void run_case_file(const char *name)
{
    char path[512];
    json *cases = NULL;
    struct tokenizer *t = NULL;
    struct error err = {0};
    snprintf(path, sizeof path, GOLDENS "%s.json", name);
    cr_assert_eq(json_read_file(path, 16 << 20, &cases, &err), ST_OK, "%s", err.text);
    snprintf(path, sizeof path, GOLDENS "%s", name);
    cr_assert_eq(tokenizer_load(path, &t, &err), ST_OK, "%s", err.text);
    cr_assert_gt(json_count(cases), 100);
    for (size_t i = 0; i < json_count(cases); i++) {
        const json *c = json_at(cases, i);
        expect_ids(t, name, json_at(c, 0), json_at(c, 1));
        expect_stream(t, name, json_at(c, 1));
    }
    tokenizer_free(t);
    json_free(cases);
}

Test(tokenizer_load, goldens)
{
    DIR *d = opendir(GOLDENS);
    size_t found = 0;
    cr_assert_not_null(d);
    for (struct dirent *e; (e = readdir(d));) {
        size_t n = strlen(e->d_name);
        char name[256];
        if (n < 6 || n >= sizeof name || strcmp(e->d_name + n - 5, ".json"))
            continue;
        memcpy(name, e->d_name, n - 5);
        name[n - 5] = 0;
        run_case_file(name);
        found++;
    }
    closedir(d);
    cr_assert_geq(found, 10);
}

static struct tokenizer *load(const char *path)
{
    struct tokenizer *t = NULL;
    struct error err = {0};
    if (access(path, R_OK))
        cr_skip_test("%s is absent", path);
    cr_assert_eq(tokenizer_load(path, &t, &err), ST_OK, "%s", err.text);
    return t;
}

static void expect_encoded(const struct tokenizer *t, const char *text, unsigned flags,
                           const char *want)
{
    struct ids ids = {0};
    struct buf got = {0};
    cr_assert_eq(tokenizer_encode(t, text, strlen(text), flags, &ids, NULL), ST_OK);
    for (size_t i = 0; i < ids.n; i++)
        buf_printf(&got, "%s%d", i ? " " : "", ids.v[i]);
    cr_assert_str_eq(got.data ? got.data : "", want, "\"%s\"", text);
    buf_fini(&got);
    ids_fini(&ids);
}

Test(tokenizer_load, specials_of_each_kind)
{
    struct tokenizer *t = load(GOLDENS "sp_llama");
    cr_assert(tokenizer_bos(t) == 1 && tokenizer_eos(t) == 2);
    cr_assert(tokenizer_is_special(t, 0) && tokenizer_is_special(t, 1) &&
              !tokenizer_is_special(t, 9));
    expect_encoded(t, "</s>", TOKENIZE_ADD_SPECIAL | TOKENIZE_PARSE_SPECIAL, "1 2");
    tokenizer_free(t);
    t = load(GOLDENS "gguf_llama/model.gguf");
    cr_assert(tokenizer_bos(t) == 1 && tokenizer_eos(t) == 2);
    expect_encoded(t, "</s>", TOKENIZE_ADD_SPECIAL | TOKENIZE_PARSE_SPECIAL, "1 2");
    tokenizer_free(t);
    t = load(GOLDENS "gguf_gpt2");
    cr_assert_eq(tokenizer_eos(t), tokenizer_find(t, "<|end|>"));
    cr_assert(tokenizer_is_special(t, tokenizer_eos(t)));
    cr_assert_str_eq(tokenizer_chat_template(t), "{{ messages }}");
    tokenizer_free(t);
    t = load(GOLDENS "gguf_bert");
    expect_encoded(t, "", TOKENIZE_ADD_SPECIAL, "2 3");
    tokenizer_free(t);
    t = load(GOLDENS "tiktoken");
    int32_t end = tokenizer_find(t, "<|im_end|>");
    cr_assert_eq(end, tokenizer_find(t, "<|endoftext|>") + 2);
    cr_assert_eq(tokenizer_find(t, "<|extra_0|>"), end + 1);
    cr_assert_eq(tokenizer_find(t, "<|extra_204|>"), end + 205);
    tokenizer_free(t);
}

/* Long texts of one word, of spaces, of user-defined pieces and of unknown characters take no
 * longer per byte than others; nor do long streams. What is quadratic would take hours. */
Test(tokenizer_load, nothing_is_quadratic, .timeout = 120)
{
    static const char *const folders[] = {"sp_llama",   "sp_bpe_user",     "sp_bpe_suffix",
                                          "sp_unigram", "sp_unigram_user", "gguf_gpt2",
                                          "gguf_bert",  "tiktoken"};
    static const char *const pieces[] = {"a", " ", "ab", "\xe2\x96\x81", "\xf0\x9f\x98\x80", "\n"};
    for (size_t k = 0; k < sizeof folders / sizeof folders[0]; k++) {
        char path[512];
        snprintf(path, sizeof path, GOLDENS "%s", folders[k]);
        struct tokenizer *t = load(path);
        for (size_t i = 0; i < sizeof pieces / sizeof pieces[0]; i++) {
            struct buf text = {0}, out = {0};
            struct ids ids = {0};
            while (text.len < 400000)
                buf_puts(&text, pieces[i]);
            cr_assert_eq(tokenizer_encode(t, text.data, text.len, TOKENIZE_PLAIN, &ids, NULL),
                         ST_OK);
            struct detok *d = detok_create(t, false);
            for (size_t n = 0; n < ids.n; n++)
                detok_push(d, ids.v[n], &out);
            detok_flush(d, &out);
            detok_destroy(d);
            ids_fini(&ids);
            buf_fini(&text);
            buf_fini(&out);
        }
        tokenizer_free(t);
    }
}

/* A GGUF vocabulary with one fault each. */
static struct buf make_gguf(const char *model, const char *pre, uint64_t scores, bool merges)
{
    struct buf b = {0};
    put_head(&b, 3, 0, 2 + (pre != NULL) + (scores != 0) + merges);
    put_key(&b, "tokenizer.ggml.model", GGUF_STRING), put_str(&b, model);
    put_key(&b, "tokenizer.ggml.tokens", GGUF_ARRAY), put_uint(&b, GGUF_STRING, 4);
    put_uint(&b, 3, 8), put_str(&b, "<unk>"), put_str(&b, "a"), put_str(&b, "b");
    if (pre)
        put_key(&b, "tokenizer.ggml.pre", GGUF_STRING), put_str(&b, pre);
    if (scores) {
        put_key(&b, "tokenizer.ggml.scores", GGUF_ARRAY), put_uint(&b, GGUF_F32, 4);
        put_uint(&b, scores, 8);
        for (uint64_t i = 0; i < scores; i++)
            put_uint(&b, 0, 4);
    }
    if (merges) {
        put_key(&b, "tokenizer.ggml.merges", GGUF_ARRAY), put_uint(&b, GGUF_STRING, 4);
        put_uint(&b, 1, 8), put_str(&b, "a b");
    }
    return b;
}

/* "EncodingName: ..", "Sample: ..", "Encoded: [..]", a blank line. */
static size_t run_plans(const struct tokenizer *t, const char *encoding)
{
    struct buf plans = read_file(DATA "tokenizers/tiktoken/TestPlans.txt");
    size_t cases = 0;
    for (char *p = strstr(plans.data, "EncodingName: "); p; p = strstr(p, "EncodingName: ")) {
        char *name = p + strlen("EncodingName: "), *sample = strstr(p, "\nSample: ");
        char *ids = strstr(sample, "\nEncoded: ["), *end = strchr(ids, ']');
        struct buf want = {0};
        p = end;
        if (strncmp(name, encoding, strlen(encoding)) || name[strlen(encoding)] != '\n')
            continue;
        *ids = 0;
        for (char *c = ids + strlen("\nEncoded: ["); c < end; c++)
            if (*c != ',')
                buf_putc(&want, *c);
        expect_encoded(t, sample + strlen("\nSample: "), TOKENIZE_PARSE_SPECIAL,
                       want.data ? want.data : "");
        buf_fini(&want);
        cases++;
    }
    buf_fini(&plans);
    return cases;
}

Test(tokenizer_load, tiktoken_test_plans)
{
    struct tokenizer *t = load(DATA "tokenizers/tiktoken");
    cr_assert_eq(run_plans(t, "cl100k_base"), 75);
    tokenizer_free(t);
    t = load(DATA "tokenizers/llamacpp/ggml-vocab-gpt-2.gguf"); /* r50k_base has its ids */
    cr_assert_eq(run_plans(t, "r50k_base"), 67);
    tokenizer_free(t);
}

/* The file in the version 1 form has the same tokenizer as the Hugging Face folder. */
Test(tokenizer_load, gguf_equals_its_folder)
{
    struct tokenizer *a = load(DATA "models/stories260K/stories260K-f32.gguf");
    struct tokenizer *b = load(DATA "models/hf/stories260K");
    static const char *const texts[] = {"Once upon a time", " two  spaces", "",
                                        "caf\xc3\xa9\n\n<s>x", "\xf0\x9f\x98\x80 </s> y"};
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        for (unsigned flags = 0; flags < 4; flags++) {
            struct ids x = {0}, y = {0};
            cr_assert_eq(tokenizer_encode(a, texts[i], strlen(texts[i]), flags, &x, NULL), ST_OK);
            cr_assert_eq(tokenizer_encode(b, texts[i], strlen(texts[i]), flags, &y, NULL), ST_OK);
            cr_assert(x.n == y.n && (!x.n || !memcmp(x.v, y.v, x.n * sizeof *x.v)), "\"%s\"",
                      texts[i]);
            ids_fini(&x);
            ids_fini(&y);
        }
    }
    tokenizer_free(a);
    tokenizer_free(b);
}

static char folder[64];

static void write_file(const char *file, const void *bytes, size_t len)
{
    char path[256];
    snprintf(path, sizeof path, "%s/%s", folder, file);
    FILE *f = fopen(path, "wb");
    cr_assert(f && (!len || fwrite(bytes, 1, len, f) == len) && fclose(f) == 0);
}

static void make_folder(void)
{
    strcpy(folder, "/tmp/baton_tok_XXXXXX");
    cr_assert_not_null(mkdtemp(folder));
}

static void remove_folder(void)
{
    char command[128];
    snprintf(command, sizeof command, "rm -rf %s", folder);
    cr_assert_eq(system(command), 0);
}

static void expect_refused(const char *file, const void *bytes, size_t len, const char *says)
{
    char path[256];
    struct tokenizer *t = NULL;
    struct error err = {0};
    snprintf(path, sizeof path, "%s/%s", folder, file);
    write_file(file, bytes, len);
    cr_assert_lt(tokenizer_load(folder, &t, &err), 0, "%s: accepted", says);
    cr_assert_not_null(strstr(err.text, says), "\"%s\" lacks \"%s\"", err.text, says);
    cr_assert_null(strchr(err.text, '\n'));
    unlink(path);
}

Test(tokenizer_load, refuses_with_one_line, .init = make_folder, .fini = remove_folder)
{
    static const char cut[] = "\x0a\x09\x0a\x05<unk>";
    static const char word[] = "\x0a\x09\x0a\x05<unk>\x18\x02\x12\x02\x18\x03";
    static const char no_unk[] = "\x0a\x03\x0a\x01x";
    static const char bad_piece[] = "\x0a\x03\x0a\x01\xff";
    expect_refused("tokenizer.model", "", 0, "without pieces");
    expect_refused("tokenizer.model", cut, sizeof cut - 2, "malformed");
    expect_refused("tokenizer.model", word, sizeof word - 1, "of type word");
    expect_refused("tokenizer.model", no_unk, sizeof no_unk - 1, "unk_id");
    expect_refused("tokenizer.model", bad_piece, sizeof bad_piece - 1, "UTF-8");
    expect_refused("odd.tiktoken", "YQ== 0\nYg== 1\n", 14, "unknown encoding");
    expect_refused("qwen.tiktoken", "YQ== 0\nYg== 1\n", 14, "fewer than there are bytes");
    expect_refused("qwen.tiktoken", "YQ== 0\nYg= x\n", 13, "line 2");
    expect_refused("qwen.tiktoken", "YQ== 1\nYg== 0\n", 14, "line 2");
    expect_refused("model.gguf", "GGUF", 4, "not a GGUF file");
    expect_refused("other", "", 0, "vocab.json");
}

Test(tokenizer_load, refuses_gguf_faults, .init = make_folder, .fini = remove_folder)
{
    static const struct {
        const char *model, *pre;
        uint64_t scores;
        bool merges;
        const char *says;
    } cases[] = {
        {"rwkv", NULL, 0, false, "\"rwkv\"; llama, gpt2, bert and t5"},
        {"gpt2", "unheard-of", 0, true, "unknown pre-tokenizer \"unheard-of\""},
        {"gpt2", "gpt-2", 0, false, "merges: expected an array"},
        {"gpt2", "gpt-2", 0, true, "not in the vocabulary"},
        {"llama", NULL, 0, false, "scores: missing"},
        {"llama", NULL, 2, false, "fewer than the 3 tokens"},
        {"bert", NULL, 0, false, "unknown_token_id"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct buf b = make_gguf(cases[i].model, cases[i].pre, cases[i].scores, cases[i].merges);
        expect_refused("model.gguf", b.data, b.len, cases[i].says);
        buf_fini(&b);
    }
    struct buf b = {0};
    put_head(&b, 3, 0, 0);
    expect_refused("model.gguf", b.data, b.len, "no tokenizer in the GGUF file");
    buf_fini(&b);
}

/* The splits that `pre` names stand for: each compiles, covers any text, and cuts as it should. */
Test(tokenizer_load, gguf_pre_types, .init = make_folder, .fini = remove_folder)
{
    static const struct {
        const char *pre, *text, *want; /* ids: a 0, b 1, ab 2, 1 3, 11 4, 111 5, 1111 6 */
    } cases[] = {
        {"", "ab1111", "2 5 3"},          {"default", "ab1111", "2 5 3"},
        {"llama-bpe", "ab1111", "2 5 3"}, {"dbrx", "1111", "5 3"},
        {"qwen2", "1111", "3 3 3 3"},     {"qwen35", "11", "3 3"},
        {"gpt-4o", "1111", "5 3"},        {"tekken", "11", "3 3"},
        {"gpt-2", "1111ab", "6 2"},       {"starcoder", "11ab", "3 3 2"},
        {"falcon", "1111", "5 3"},        {"deepseek-v3", "1111", "5 3"},
        {"deepseek-coder", "11", "3 3"},  {"deepseek-llm", "ab1111", "2 6"},
        {"bloom", "ab,ab", "2 2"},        {"viking", "ab11", "2 3 3"},
        {"bailingmoe", "11", "3 3"},      {"seed-coder", "11", "3 3"},
        {"superbpe", "1111", "3 5"},      {"kimi-k2", "1111", "5 3"},
        {"gemma4", "ab1111", "2 6"},      {"command-r", "11", "3 3"},
    };
    static const char *const tokens[] = {"a", "b", "ab", "1", "11", "111", "1111"};
    static const char mixed[] =
        "a  b\n\n\t'S \xe4\xbd\xa0\xe5\xa5\xbd, \xd0\x96\xcc\x81 12345 <|x|> \xf0\x9f\x98\x80 ";
    for (size_t k = 0; k < sizeof cases / sizeof cases[0]; k++) {
        struct buf b = {0};
        put_head(&b, 3, 0, 5);
        put_key(&b, "tokenizer.ggml.model", GGUF_STRING), put_str(&b, "gpt2");
        put_key(&b, "tokenizer.ggml.pre", GGUF_STRING), put_str(&b, cases[k].pre);
        put_key(&b, "tokenizer.ggml.add_bos_token", GGUF_BOOL), put_uint(&b, 0, 1);
        put_key(&b, "tokenizer.ggml.tokens", GGUF_ARRAY), put_uint(&b, GGUF_STRING, 4);
        put_uint(&b, 7, 8);
        for (size_t i = 0; i < 7; i++)
            put_str(&b, tokens[i]);
        put_key(&b, "tokenizer.ggml.merges", GGUF_ARRAY), put_uint(&b, GGUF_STRING, 4);
        put_uint(&b, 4, 8), put_str(&b, "a b"), put_str(&b, "1 1"), put_str(&b, "11 1");
        put_str(&b, "11 11");
        write_file("model.gguf", b.data, b.len);
        struct tokenizer *t = load(folder);
        expect_encoded(t, cases[k].text, TOKENIZE_PLAIN, cases[k].want);
        struct ids ids = {0};
        cr_assert_eq(tokenizer_encode(t, mixed, sizeof mixed - 1, TOKENIZE_PLAIN, &ids, NULL),
                     ST_OK);
        ids_fini(&ids);
        tokenizer_free(t);
        buf_fini(&b);
    }
}

/* Published, but mangled on its way: bytes are missing. It must not load as something else. */
Test(tokenizer_load, refuses_a_damaged_model, .init = make_folder, .fini = remove_folder)
{
    char command[512];
    struct tokenizer *t = NULL;
    struct error err = {0};
    if (access(DATA "tokenizers/tinyllama/tokenizer.model", R_OK))
        cr_skip_test("the file is absent");
    snprintf(command, sizeof command, "cp %s %s/", DATA "tokenizers/tinyllama/tokenizer.model",
             folder);
    cr_assert_eq(system(command), 0);
    cr_assert_eq(tokenizer_load(folder, &t, &err), ST_INVALID);
    cr_assert_not_null(strstr(err.text, "malformed"), "%s", err.text);
}
