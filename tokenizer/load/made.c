/* What the loaders share: writing pieces of a tokenizer.json. */
#include "tokenizer/load/load.h"

void made_fini(struct made *m)
{
    buf_fini(&m->tokenizer);
    buf_fini(&m->config);
}

void made_key_str(struct jw *w, const char *key, const char *s)
{
    jw_key(w, key);
    jw_str(w, s);
}

void made_key_bool(struct jw *w, const char *key, bool v)
{
    jw_key(w, key);
    jw_bool(w, v);
}

void made_split(struct jw *w, const char *pattern)
{
    jw_obj(w);
    made_key_str(w, "type", "Split");
    jw_key(w, "pattern");
    jw_obj(w);
    made_key_str(w, "Regex", pattern);
    jw_end_obj(w);
    made_key_str(w, "behavior", "Isolated");
    jw_end_obj(w);
}

static void write_byte_level(struct jw *w)
{
    jw_obj(w);
    made_key_str(w, "type", "ByteLevel");
    made_key_bool(w, "add_prefix_space", false);
    made_key_bool(w, "use_regex", false);
    jw_end_obj(w);
}

void made_byte_level(struct jw *w, const char *const *patterns, size_t n)
{
    jw_key(w, "pre_tokenizer");
    jw_obj(w);
    made_key_str(w, "type", "Sequence");
    jw_key(w, "pretokenizers");
    jw_arr(w);
    for (size_t i = 0; i < n && patterns[i]; i++)
        made_split(w, patterns[i]);
    write_byte_level(w);
    jw_end_arr(w);
    jw_end_obj(w);
    jw_key(w, "decoder");
    write_byte_level(w);
}

void made_space_decoder(struct jw *w, int64_t start, int64_t stop)
{
    jw_key(w, "decoder");
    jw_obj(w);
    made_key_str(w, "type", "Sequence");
    jw_key(w, "decoders");
    jw_arr(w);
    jw_raw(w, "{\"type\":\"Replace\",\"pattern\":{\"String\":\"\xe2\x96\x81\"},\"content\":\" \"}");
    jw_raw(w, "{\"type\":\"ByteFallback\"}");
    jw_raw(w, "{\"type\":\"Fuse\"}");
    if (start || stop) {
        jw_obj(w);
        made_key_str(w, "type", "Strip");
        made_key_str(w, "content", " ");
        jw_key(w, "start");
        jw_int(w, start);
        jw_key(w, "stop");
        jw_int(w, stop);
        jw_end_obj(w);
    }
    jw_end_arr(w);
    jw_end_obj(w);
}

void made_added(struct jw *w, int64_t id, const char *s, size_t len, bool special)
{
    jw_obj(w);
    jw_key(w, "id");
    jw_int(w, id);
    jw_key(w, "content");
    jw_strn(w, s, len);
    made_key_bool(w, "special", special);
    made_key_bool(w, "normalized", false);
    jw_end_obj(w);
}

static void write_special(struct jw *w, const char *name, int64_t id)
{
    if (id < 0)
        return;
    jw_key(w, name);
    jw_obj(w);
    jw_key(w, "ids");
    jw_arr(w);
    jw_int(w, id);
    jw_end_arr(w);
    jw_end_obj(w);
}

static void write_part(struct jw *w, const char *kind, const char *id)
{
    jw_obj(w);
    jw_key(w, kind);
    jw_obj(w);
    made_key_str(w, "id", id);
    jw_end_obj(w);
    jw_end_obj(w);
}

void made_template(struct jw *w, int64_t before, int64_t after)
{
    if (before < 0 && after < 0)
        return;
    jw_key(w, "post_processor");
    jw_obj(w);
    made_key_str(w, "type", "TemplateProcessing");
    jw_key(w, "single");
    jw_arr(w);
    if (before >= 0)
        write_part(w, "SpecialToken", "before");
    write_part(w, "Sequence", "A");
    if (after >= 0)
        write_part(w, "SpecialToken", "after");
    jw_end_arr(w);
    jw_key(w, "special_tokens");
    jw_obj(w);
    write_special(w, "before", before);
    write_special(w, "after", after);
    jw_end_obj(w);
    jw_end_obj(w);
}
