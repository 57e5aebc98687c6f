/* The tokenizer in a GGUF file's metadata: `tokenizer.ggml.model` says which kind it is. */
#include "formats/gguf.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/utf8.h"
#include "tokenizer/load/load.h"
#include "tokenizer/load/patterns.h"
#include "tokenizer/model.h"

#define KEY "tokenizer.ggml."

struct tokens {
    const struct gguf *g;
    const struct gguf_value *text, *score, *type;
    size_t n;
    int64_t bos, eos, unk, sep; /* -1: none */
};

static struct gguf_str token_text(const struct tokens *t, size_t i)
{
    struct gguf_str s = gguf_item_string(t->text, i);
    return s.s ? s : (struct gguf_str){"", 0};
}

static int token_type(const struct tokens *t, size_t i)
{
    int64_t type = gguf_item_int(t->type, i, PIECE_NORMAL);
    return type >= PIECE_NORMAL && type <= PIECE_BYTE ? (int)type : PIECE_NORMAL;
}

static int64_t token_id(const struct tokens *t, const char *key, int64_t fallback)
{
    int64_t id = gguf_int(t->g, key, fallback);
    return id >= 0 && id < (int64_t)t->n ? id : -1;
}

static enum status read_tokens(const struct gguf *g, struct tokens *t, struct error *err)
{
    *t = (struct tokens){.g = g,
                         .text = gguf_find(g, KEY "tokens"),
                         .score = gguf_find(g, KEY "scores"),
                         .type = gguf_find(g, KEY "token_type")};
    if (!t->text || t->text->item != GGUF_STRING || t->text->type != GGUF_ARRAY)
        return err_set(err, ST_INVALID, KEY "tokens: expected an array of strings");
    t->n = (size_t)t->text->count;
    if (t->n == 0 || t->n > VOCAB_ENTRIES_MAX)
        return err_set(err, ST_INVALID, KEY "tokens: %zu of them, at most %u", t->n,
                       VOCAB_ENTRIES_MAX);
    if ((t->score && t->score->count < t->n) || (t->type && t->type->count < t->n))
        return err_set(err, ST_INVALID, KEY "%s: fewer than the %zu tokens",
                       t->score && t->score->count < t->n ? "scores" : "token_type", t->n);
    for (size_t i = 0; i < t->n; i++) {
        struct gguf_str s = token_text(t, i);
        if (s.len > PIECE_MAX || !utf8_valid(s.s, s.len))
            return err_set(err, ST_INVALID, KEY "tokens[%zu]: too long, or not UTF-8", i);
    }
    t->bos = token_id(t, KEY "bos_token_id", -1);
    t->eos = token_id(t, KEY "eos_token_id", -1);
    t->unk = token_id(t, KEY "unknown_token_id", -1);
    t->sep = token_id(t, KEY "seperator_token_id", token_id(t, KEY "separator_token_id", -1));
    return ST_OK;
}

static int64_t when(bool yes, int64_t id)
{
    return yes ? id : -1;
}

/* --- llama (BPE by scores) and t5 (unigram) */

static enum status load_pieces(struct tokens *t, bool unigram, struct made *out, struct error *err)
{
    const struct gguf_value *map = gguf_find(t->g, KEY "precompiled_charsmap");
    struct sp_model m = {.unigram = unigram, .escape = true, .user_first = !unigram};
    if (!t->score)
        return err_set(err, ST_INVALID, KEY "scores: missing");
    if (!unigram) { /* what such files leave out */
        t->bos = token_id(t, KEY "bos_token_id", 1);
        t->eos = token_id(t, KEY "eos_token_id", 2);
        t->unk = token_id(t, KEY "unknown_token_id", 0);
    } else if (t->unk < 0) {
        t->unk = token_id(t, KEY "unknown_token_id", 2);
    }
    m.bos = t->bos;
    m.eos = t->eos;
    m.unk = t->unk;
    m.prefix = gguf_bool(t->g, KEY "add_space_prefix", true);
    m.collapse = gguf_bool(t->g, KEY "remove_extra_whitespaces", unigram) && unigram;
    if (map && (map->item == GGUF_U8 || map->item == GGUF_I8) && unigram) {
        m.charsmap = map->data;
        m.charsmap_len = (size_t)map->count;
    }
    m.add_bos = when(gguf_bool(t->g, KEY "add_bos_token", !unigram), t->bos);
    m.add_eos = when(gguf_bool(t->g, KEY "add_eos_token", unigram), t->eos);
    enum status st = ST_OK;
    for (size_t i = 0; i < t->n && !st; i++) {
        struct gguf_str s = token_text(t, i);
        struct sp_piece p = {s.s, s.len, (float)gguf_item_number(t->score, i, 0), token_type(t, i)};
        m.byte_fallback = m.byte_fallback || p.type == PIECE_BYTE;
        st = sp_model_add(&m, &p, err);
    }
    if (!st)
        st = sp_model_write(&m, out, err);
    buf_clear(&out->config); /* written for all kinds alike */
    free(m.pieces);
    return st;
}

/* --- gpt2 (BPE by merges) */

static bool is_added(int type)
{
    return type == PIECE_CONTROL || type == PIECE_USER_DEFINED;
}

static void write_added(struct jw *w, const struct tokens *t)
{
    jw_key(w, "added_tokens");
    jw_arr(w);
    for (size_t i = 0; i < t->n; i++) {
        struct gguf_str s = token_text(t, i);
        if (s.len && is_added(token_type(t, i)))
            made_added(w, (int64_t)i, s.s, s.len, token_type(t, i) == PIECE_CONTROL);
    }
    jw_end_arr(w);
}

static void write_bpe_model(struct jw *w, const struct tokens *t, const struct gguf_value *merges,
                            const struct pre_type *pre)
{
    jw_key(w, "model");
    jw_obj(w);
    made_key_str(w, "type", "BPE");
    made_key_bool(w, "ignore_merges", pre->ignore_merges);
    made_key_bool(w, "byte_fallback", pre->spaces_escaped);
    jw_key(w, "vocab");
    jw_arr(w);
    for (size_t i = 0; i < t->n; i++) {
        struct gguf_str s = token_text(t, i);
        if (!s.len || is_added(token_type(t, i)))
            jw_null(w);
        else
            jw_strn(w, s.s, s.len);
    }
    jw_end_arr(w);
    jw_key(w, "merges");
    jw_arr(w);
    for (uint64_t i = 0; i < merges->count; i++) {
        struct gguf_str s = gguf_item_string(merges, i);
        jw_strn(w, s.s, s.len);
    }
    jw_end_arr(w);
    jw_end_obj(w);
}

static void write_escaped_spaces(struct jw *w, const struct pre_type *pre)
{
    jw_key(w, "normalizer");
    jw_raw(w, "{\"type\":\"Replace\",\"pattern\":{\"String\":\" \"},\"content\":\"\xe2\x96\x81\"}");
    jw_key(w, "pre_tokenizer");
    made_split(w, pre->patterns[0]);
    made_space_decoder(w, 0, 0);
}

static enum status load_bpe(struct tokens *t, struct made *out, struct error *err)
{
    char name[64] = "";
    struct gguf_str given = gguf_string(t->g, KEY "pre");
    const struct gguf_value *merges = gguf_find(t->g, KEY "merges");
    snprintf(name, sizeof(name), "%.*s", given.len < sizeof(name) ? (int)given.len : 63,
             given.s ? given.s : "");
    const struct pre_type *pre = pre_type_find(name);
    if (!pre)
        return err_set(err, ST_UNSUPPORTED, KEY "pre: unknown pre-tokenizer \"%s\"", name);
    if (!merges || merges->item != GGUF_STRING || merges->count > VOCAB_ENTRIES_MAX)
        return err_set(err, ST_INVALID, KEY "merges: expected an array of strings");
    struct jw w = jw_begin(&out->tokenizer);
    jw_obj(&w);
    write_added(&w, t);
    if (pre->nfc) {
        jw_key(&w, "normalizer");
        jw_raw(&w, "{\"type\":\"NFC\"}");
    }
    if (pre->spaces_escaped)
        write_escaped_spaces(&w, pre);
    else
        made_byte_level(&w, pre->patterns, PATTERNS_MAX);
    made_template(&w, when(gguf_bool(t->g, KEY "add_bos_token", pre->add_bos), t->bos),
                  when(gguf_bool(t->g, KEY "add_eos_token", false), t->eos));
    write_bpe_model(&w, t, merges, pre);
    jw_end_obj(&w);
    return ST_OK;
}

/* --- bert (WordPiece) */

/* The file has "U+2581 word" for a word's start and nothing in front of what goes on. */
static void write_wordpieces(struct jw *w, const struct tokens *t)
{
    struct buf text = {0};
    jw_key(w, "vocab");
    jw_arr(w);
    for (size_t i = 0; i < t->n; i++) {
        struct gguf_str s = token_text(t, i);
        bool start = s.len >= 3 && !memcmp(s.s, "\xe2\x96\x81", 3);
        bool bracketed = s.len > 2 && s.s[0] == '[' && s.s[s.len - 1] == ']';
        buf_clear(&text);
        if (!start && !bracketed && token_type(t, i) == PIECE_NORMAL)
            buf_puts(&text, "##");
        buf_append(&text, s.s + (start ? 3 : 0), s.len - (start ? 3 : 0));
        jw_strn(w, text.data ? text.data : "", text.len);
    }
    jw_end_arr(w);
    buf_fini(&text);
}

/* A vocabulary with capitals (other than in [CLS] and the like) is of a cased model. */
static bool is_cased(const struct tokens *t)
{
    for (size_t i = 0; i < t->n; i++) {
        struct gguf_str s = token_text(t, i);
        for (size_t k = 0; k < s.len && s.s[0] != '[' && token_type(t, i) == PIECE_NORMAL; k++)
            if (s.s[k] >= 'A' && s.s[k] <= 'Z')
                return true;
    }
    return false;
}

static enum status load_wordpiece(struct tokens *t, struct made *out, struct error *err)
{
    bool lower = gguf_bool(t->g, KEY "normalizer.lowercase", !is_cased(t));
    int64_t unk = t->unk < 0 ? token_id(t, KEY "unknown_token_id", 100) : t->unk;
    int64_t cls = token_id(t, KEY "cls_token_id", t->bos >= 0 ? t->bos : 101);
    int64_t sep = t->sep >= 0 ? t->sep : token_id(t, KEY "eos_token_id", 102);
    if (unk < 0)
        return err_set(err, ST_INVALID, KEY "unknown_token_id: missing");
    struct gguf_str unknown = token_text(t, (size_t)unk);
    struct jw w = jw_begin(&out->tokenizer);
    jw_obj(&w);
    jw_key(&w, "normalizer");
    jw_obj(&w);
    made_key_str(&w, "type", "BertNormalizer");
    made_key_bool(&w, "lowercase", lower);
    made_key_bool(&w, "strip_accents", gguf_bool(t->g, KEY "normalizer.strip_accents", lower));
    jw_end_obj(&w);
    jw_key(&w, "pre_tokenizer");
    jw_raw(&w, "{\"type\":\"BertPreTokenizer\"}");
    jw_key(&w, "decoder");
    jw_raw(&w, "{\"type\":\"WordPiece\",\"prefix\":\"##\",\"cleanup\":true}");
    write_added(&w, t);
    made_template(&w, when(gguf_bool(t->g, KEY "add_bos_token", true), cls),
                  when(gguf_bool(t->g, KEY "add_eos_token", true), sep));
    jw_key(&w, "model");
    jw_obj(&w);
    made_key_str(&w, "type", "WordPiece");
    jw_key(&w, "unk_token");
    jw_strn(&w, unknown.s, unknown.len);
    write_wordpieces(&w, t);
    jw_end_obj(&w);
    jw_end_obj(&w);
    return ST_OK;
}

/* --- all kinds */

static void write_named(struct jw *w, const char *key, const struct tokens *t, int64_t id)
{
    if (id < 0)
        return;
    struct gguf_str s = token_text(t, (size_t)id);
    jw_key(w, key);
    jw_strn(w, s.s, s.len);
}

static void write_template(struct jw *w, const char *name, struct gguf_str text)
{
    jw_obj(w);
    jw_key(w, "name");
    jw_str(w, name);
    jw_key(w, "template");
    jw_strn(w, text.s, text.len);
    jw_end_obj(w);
}

static void write_config(const struct tokens *t, struct buf *out)
{
    struct gguf_str template = gguf_string(t->g, "tokenizer.chat_template");
    struct jw w = jw_begin(out);
    jw_obj(&w);
    write_named(&w, "bos_token", t, t->bos);
    write_named(&w, "eos_token", t, t->eos);
    struct gguf_str tools = gguf_string(t->g, "tokenizer.chat_template.tool_use");
    if (template.s && !tools.s) {
        jw_key(&w, "chat_template");
        jw_strn(&w, template.s, template.len);
    } else if (template.s) {
        jw_key(&w, "chat_template");
        jw_arr(&w);
        write_template(&w, "default", template);
        write_template(&w, "tool_use", tools);
        jw_end_arr(&w);
    }
    jw_end_obj(&w);
}

enum status load_gguf(const struct gguf *g, struct made *out, struct error *err)
{
    struct gguf_str model = gguf_string(g, KEY "model");
    struct tokens t;
    char name[64] = "";
    if (!model.s)
        return err_set(err, ST_NOT_FOUND, "no tokenizer in the GGUF file");
    snprintf(name, sizeof(name), "%.*s", model.len < sizeof(name) ? (int)model.len : 63, model.s);
    out->tokenizer.max = (size_t)512 << 20;
    enum status st = read_tokens(g, &t, err);
    if (st)
        return st;
    if (!strcmp(name, "llama") || !strcmp(name, "t5"))
        st = load_pieces(&t, *name == 't', out, err);
    else if (!strcmp(name, "gpt2"))
        st = load_bpe(&t, out, err);
    else if (!strcmp(name, "bert"))
        st = load_wordpiece(&t, out, err);
    else
        st = err_set(err, ST_UNSUPPORTED,
                     KEY "model \"%s\"; llama, gpt2, bert and t5 are supported", name);
    if (!st)
        write_config(&t, &out->config);
    if (!st && (out->tokenizer.failed || out->config.failed))
        st = err_set(err, ST_NO_MEMORY, "no memory for a tokenizer");
    return st;
}
