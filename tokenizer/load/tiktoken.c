/* tiktoken files: a line "BASE64 RANK" for each token's bytes. What splits the text and which
 * special tokens there are is not in the file: it is known by the encoding's name, or by the class
 * of tokenizer that the configuration names. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tokenizer/base64.h"
#include "tokenizer/bytelevel.h"
#include "tokenizer/load/load.h"
#include "tokenizer/load/patterns.h"
#include "tokenizer/model.h"

#define TOKEN_BYTES_MAX 500 /* PIECE_MAX in the byte alphabet */

/* A special token at an offset from the number of ranks, or, where that is -1, at `id`. */
struct special {
    const char *text;
    int64_t id;
};

struct encoding {
    const char *name;           /* in the file's name */
    const char *class;          /* or in tokenizer_class; NULL: by name only */
    const char *const *pattern; /* PATTERNS_MAX, NULL-ended */
    const struct special *specials;
    const char *bos, *eos;
    const char *numbered; /* printf pattern of reserved tokens, from ranks + first */
    int64_t first, count;
    bool relative; /* specials' ids count from the number of ranks */
    bool add_bos;
};

static const struct special gpt2_specials[] = {{"<|endoftext|>", 50256}, {0}};
static const struct special edit_specials[] = {{"<|endoftext|>", 50256},
                                               {"<|fim_prefix|>", 50281},
                                               {"<|fim_middle|>", 50282},
                                               {"<|fim_suffix|>", 50283},
                                               {0}};
static const struct special cl100k_specials[] = {
    {"<|endoftext|>", 100257},  {"<|fim_prefix|>", 100258},  {"<|fim_middle|>", 100259},
    {"<|fim_suffix|>", 100260}, {"<|endofprompt|>", 100276}, {0}};
static const struct special o200k_specials[] = {
    {"<|endoftext|>", 199999}, {"<|endofprompt|>", 200018}, {0}};
static const struct special harmony_specials[] = {{"<|startoftext|>", 199998},
                                                  {"<|endoftext|>", 199999},
                                                  {"<|return|>", 200002},
                                                  {"<|constrain|>", 200003},
                                                  {"<|channel|>", 200005},
                                                  {"<|start|>", 200006},
                                                  {"<|end|>", 200007},
                                                  {"<|message|>", 200008},
                                                  {"<|call|>", 200012},
                                                  {"<|endofprompt|>", 200018},
                                                  {0}};
static const struct special qwen_specials[] = {
    {"<|endoftext|>", 0}, {"<|im_start|>", 1}, {"<|im_end|>", 2}, {0}};
static const struct special llama3_specials[] = {{"<|begin_of_text|>", 0},
                                                 {"<|end_of_text|>", 1},
                                                 {"<|finetune_right_pad_id|>", 4},
                                                 {"<|step_id|>", 5},
                                                 {"<|start_header_id|>", 6},
                                                 {"<|end_header_id|>", 7},
                                                 {"<|eom_id|>", 8},
                                                 {"<|eot_id|>", 9},
                                                 {"<|python_tag|>", 10},
                                                 {0}};

/* More particular names first. */
static const struct encoding encodings[] = {
    {"o200k_harmony", NULL, pattern_o200k, harmony_specials, "<|startoftext|>", "<|return|>",
     "<|reserved_%lld|>", 200000, 1088},
    {"o200k", NULL, pattern_o200k, o200k_specials, NULL, "<|endoftext|>"},
    {"cl100k", NULL, pattern_cl100k, cl100k_specials, NULL, "<|endoftext|>"},
    {"p50k_edit", NULL, pattern_gpt2, edit_specials, NULL, "<|endoftext|>"},
    {"p50k", NULL, pattern_gpt2, gpt2_specials, NULL, "<|endoftext|>"},
    {"r50k", NULL, pattern_gpt2, gpt2_specials, NULL, "<|endoftext|>"},
    {"gpt2", NULL, pattern_gpt2, gpt2_specials, NULL, "<|endoftext|>"},
    {"qwen", "QWenTokenizer", pattern_qwen2, qwen_specials, NULL, "<|endoftext|>", "<|extra_%lld|>",
     3, 205, true},
    {"tiktoken.model", "TikTokenTokenizer", pattern_kimi, NULL, NULL, NULL},
    {"tokenizer.model", NULL, pattern_llama3, llama3_specials, "<|begin_of_text|>",
     "<|end_of_text|>", "<|reserved_special_token_%lld|>", 0, 256, true, true},
};

bool load_is_tiktoken(const void *bytes, size_t len)
{
    const char *s = bytes, *line = len ? memchr(s, '\n', len < 4096 ? len : 4096) : NULL;
    size_t n = line ? (size_t)(line - s) : 0, i = 0;
    while (i < n && (s[i] == '+' || (s[i] >= '/' && s[i] <= '9') || s[i] == '=' ||
                     (s[i] >= 'A' && s[i] <= 'Z') || (s[i] >= 'a' && s[i] <= 'z')))
        i++;
    if (i == 0 || i % 4 || i >= n || s[i++] != ' ')
        return false;
    size_t digits = i;
    while (i < n && s[i] >= '0' && s[i] <= '9')
        i++;
    return i > digits && (i == n || s[i] == '\r');
}

/* One line's bytes in the byte alphabet, and its rank. */
static bool read_line(const char *s, size_t len, struct buf *text, size_t *rank)
{
    const char *space = memchr(s, ' ', len);
    struct buf raw = {.max = TOKEN_BYTES_MAX};
    size_t n = space ? (size_t)(space - s) : 0;
    bool ok = n && n < len - 1 && len - n - 1 < 9 && base64_decode(s, n, &raw) && raw.len;
    *rank = 0;
    for (size_t i = n + 1; ok && i < len; i++) {
        ok = s[i] >= '0' && s[i] <= '9';
        *rank = *rank * 10 + (size_t)(s[i] - '0');
    }
    buf_clear(text);
    if (ok)
        bytelevel_map(raw.data, raw.len, text);
    buf_fini(&raw);
    return ok && !text->failed && *rank < VOCAB_ENTRIES_MAX;
}

/* The pieces by rank: holes are null. */
static enum status write_ranks(struct jw *w, const char *s, size_t len, size_t *count,
                               struct error *err)
{
    struct buf text = {0};
    size_t number = 0, next = 0;
    enum status st = ST_OK;
    for (size_t at = 0; at < len && !st;) {
        const char *nl = memchr(s + at, '\n', len - at);
        size_t n = nl ? (size_t)(nl - s) - at : len - at, rank;
        const char *line = s + at;
        at += n + 1;
        number++;
        n -= n && line[n - 1] == '\r';
        if (n == 0)
            continue;
        if (!read_line(line, n, &text, &rank) || rank < next) {
            st = err_set(err, ST_INVALID,
                         "line %zu: expected a token in base64 and its rank, "
                         "which grows",
                         number);
            continue;
        }
        for (; next < rank; next++)
            jw_null(w);
        jw_arr(w);
        jw_strn(w, text.data, text.len);
        jw_int(w, -(int64_t)rank);
        jw_end_arr(w);
        next = rank + 1;
    }
    if (!st && next < 256)
        st = err_set(err, ST_INVALID, "%zu tokens, fewer than there are bytes", next);
    *count = next;
    buf_fini(&text);
    return st;
}

static void write_specials(struct jw *w, const struct encoding *e, size_t ranks)
{
    int64_t base = e->relative ? (int64_t)ranks : 0;
    char text[64];
    jw_key(w, "added_tokens");
    jw_arr(w);
    for (const struct special *s = e->specials; s && s->text; s++)
        made_added(w, base + s->id, s->text, strlen(s->text), true);
    /* reserved ones take the ids that are left; relative ones are numbered by themselves */
    for (int64_t i = 0, k = 0; e->numbered && i < e->count; i++) {
        bool taken = false;
        for (const struct special *s = e->specials; s && s->text; s++)
            taken = taken || s->id == e->first + i;
        if (taken)
            continue;
        long long number = e->relative ? k++ : e->first + i;
        int n = snprintf(text, sizeof(text), e->numbered, number);
        made_added(w, base + e->first + i, text, (size_t)n, true);
    }
    jw_end_arr(w);
}

static const struct encoding *find_encoding(const char *name, const json *config)
{
    const char *class = json_as_str(json_get(config, "tokenizer_class"), "");
    for (size_t i = 0; i < sizeof(encodings) / sizeof(encodings[0]); i++)
        if (encodings[i].class && !strcmp(encodings[i].class, class))
            return &encodings[i];
    for (size_t i = 0; i < sizeof(encodings) / sizeof(encodings[0]); i++)
        if (strstr(name, encodings[i].name))
            return &encodings[i];
    return NULL;
}

static int64_t special_id(const struct encoding *e, const char *text, size_t ranks)
{
    for (const struct special *s = e->specials; text && s && s->text; s++)
        if (!strcmp(s->text, text))
            return (e->relative ? (int64_t)ranks : 0) + s->id;
    return -1;
}

enum status load_tiktoken(const char *name, const void *bytes, size_t len, const json *config,
                          struct made *out, struct error *err)
{
    const struct encoding *e = find_encoding(name, config);
    size_t ranks = 0;
    if (!e)
        return err_set(err, ST_UNSUPPORTED,
                       "tiktoken ranks of an unknown encoding: neither the name %.60s nor "
                       "tokenizer_class says which",
                       name);
    struct jw w = jw_begin(&out->tokenizer);
    jw_obj(&w);
    made_byte_level(&w, e->pattern, PATTERNS_MAX);
    jw_key(&w, "model");
    jw_obj(&w);
    made_key_str(&w, "type", "BPE");
    made_key_bool(&w, "ignore_merges", true);
    jw_key(&w, "vocab");
    jw_arr(&w);
    enum status st = write_ranks(&w, bytes, len, &ranks, err);
    jw_end_arr(&w);
    jw_end_obj(&w);
    write_specials(&w, e, ranks);
    made_template(&w, e->add_bos ? special_id(e, e->bos, ranks) : -1, -1);
    jw_end_obj(&w);
    struct jw c = jw_begin(&out->config);
    jw_obj(&c);
    if (e->bos)
        made_key_str(&c, "bos_token", e->bos);
    if (e->eos)
        made_key_str(&c, "eos_token", e->eos);
    jw_end_obj(&c);
    if (!st && (out->tokenizer.failed || out->config.failed))
        st = err_set(err, ST_NO_MEMORY, "no memory for a tokenizer");
    return st;
}
