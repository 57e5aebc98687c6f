/* Folders without a tokenizer.json but with vocab.json and merges.txt (GPT-2's form): the
 * tokenizer.json that transformers would make of them, by the tokenizer class that the
 * configuration names. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "tokenizer/internal.h"

#define FILE_BYTES_MAX ((size_t)64 << 20)

#define QWEN2_PATTERN                                                                              \
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}| ?[^\\s\\p{L}\\p{N}]+"      \
    "[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"

static enum status read_text(const char *dir, const char *name, struct buf *out, struct error *err)
{
    char path[4096];
    if (snprintf(path, sizeof(path), "%s/%s", dir, name) >= (int)sizeof(path))
        return err_set(err, ST_INVALID, "path too long");
    enum status st = file_read(path, FILE_BYTES_MAX, out, err);
    if (st == ST_NOT_FOUND)
        return err_set(err, st, "%s: no tokenizer.json, and no %s in its place", dir, name);
    return st;
}

static void write_merges(struct jw *w, const struct buf *merges)
{
    const char *s = merges->data ? merges->data : "", *end = s + merges->len;
    jw_key(w, "merges");
    jw_arr(w);
    while (s < end) {
        const char *nl = memchr(s, '\n', (size_t)(end - s));
        size_t len = nl ? (size_t)(nl - s) : (size_t)(end - s);
        size_t text = len && s[len - 1] == '\r' ? len - 1 : len;
        if (text && !(text >= 8 && !memcmp(s, "#version", 8)))
            jw_strn(w, s, text);
        s += len + 1;
    }
    jw_end_arr(w);
}

static void write_byte_level(struct jw *w, bool prefix, bool use_regex)
{
    jw_obj(w);
    jw_key(w, "type");
    jw_str(w, "ByteLevel");
    jw_key(w, "add_prefix_space");
    jw_bool(w, prefix);
    jw_key(w, "use_regex");
    jw_bool(w, use_regex);
    jw_end_obj(w);
}

static void write_split(struct jw *w, const char *pattern)
{
    jw_obj(w);
    jw_key(w, "type");
    jw_str(w, "Split");
    jw_key(w, "pattern");
    jw_obj(w);
    jw_key(w, "Regex");
    jw_str(w, pattern);
    jw_end_obj(w);
    jw_key(w, "behavior");
    jw_str(w, "Isolated");
    jw_end_obj(w);
}

enum status legacy_make_json(const char *dir, const json *config, struct buf *out,
                             struct error *err)
{
    struct buf vocab = {0}, merges = {0};
    const char *class = json_as_str(json_get(config, "tokenizer_class"), "");
    bool qwen = !strncmp(class, "Qwen", 4);
    enum status st = read_text(dir, "vocab.json", &vocab, err);
    if (!st)
        st = read_text(dir, "merges.txt", &merges, err);
    if (st)
        goto done;
    struct jw w = jw_begin(out);
    jw_obj(&w);
    if (qwen) {
        jw_key(&w, "normalizer");
        jw_raw(&w, "{\"type\":\"NFC\"}");
    }
    jw_key(&w, "pre_tokenizer");
    if (qwen) {
        jw_obj(&w);
        jw_key(&w, "type");
        jw_str(&w, "Sequence");
        jw_key(&w, "pretokenizers");
        jw_arr(&w);
        write_split(&w, QWEN2_PATTERN);
        write_byte_level(&w, false, false);
        jw_end_arr(&w);
        jw_end_obj(&w);
    } else {
        write_byte_level(&w, json_as_bool(json_get(config, "add_prefix_space"), false), true);
    }
    jw_key(&w, "decoder");
    write_byte_level(&w, true, true);
    jw_key(&w, "model");
    jw_obj(&w);
    jw_key(&w, "type");
    jw_str(&w, "BPE");
    jw_key(&w, "vocab");
    jw_raw(&w, vocab.data ? vocab.data : "null");
    write_merges(&w, &merges);
    jw_end_obj(&w);
    jw_end_obj(&w);
    if (out->failed)
        st = err_set(err, ST_NO_MEMORY, "tokenizer: no memory");
done:
    buf_fini(&vocab);
    buf_fini(&merges);
    return st;
}
