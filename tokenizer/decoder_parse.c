/* The "decoder" of a tokenizer.json to stages. */
#include <stdlib.h>
#include <string.h>

#include "tokenizer/decoder.h"

static enum status take_text(struct dec_stage *s, struct text_ref text, const char *key,
                             struct error *err)
{
    if (text.len >= sizeof(s->text))
        return err_set(err, ST_INVALID, "%s: %zu bytes, at most %zu", key, text.len,
                       sizeof(s->text) - 1);
    memcpy(s->text, text.s, text.len);
    s->text_len = text.len;
    return ST_OK;
}

static enum status parse_replace(const json *v, struct dec_stage *s, struct error *err)
{
    struct text_ref content;
    const json *literal = json_get(json_get(v, "pattern"), "String");
    enum status st = parse_str(v, "content", NULL, &content, err);
    if (st)
        return st;
    s->content_len = content.len;
    s->content = malloc(content.len + 1);
    if (!s->content)
        return err_set(err, ST_NO_MEMORY, "no memory");
    memcpy(s->content, content.s, content.len);
    if (json_kind_of(literal) == JSON_STR && json_str_len(literal) < sizeof(s->text))
        return take_text(s, (struct text_ref){json_as_str(literal, ""), json_str_len(literal)},
                         "pattern", err);
    return parse_pattern(v, "pattern", &s->pattern, err);
}

static enum status parse_strip(const json *v, struct dec_stage *s, struct error *err)
{
    struct text_ref c;
    enum status st = parse_char(v, "content", " ", &c, err);
    if (!st)
        st = take_text(s, c, "content", err);
    if (!st)
        st = parse_count(v, "start", 0, &s->start, err);
    return st ? st : parse_count(v, "stop", 0, &s->stop, err);
}

static enum status parse_metaspace(const json *v, struct dec_stage *s, struct error *err)
{
    struct text_ref c, scheme;
    bool prefix;
    enum status st = parse_char(v, "replacement", "\xe2\x96\x81", &c, err);
    if (!st)
        st = take_text(s, c, "replacement", err);
    if (!st)
        st = parse_bool(v, "add_prefix_space", true, &prefix, err);
    if (!st)
        st = parse_str(v, "prepend_scheme", "always", &scheme, err);
    if (!st)
        s->keep_first = !prefix || !strcmp(scheme.s, "never");
    return st;
}

static enum status parse_wordpiece(const json *v, struct dec_stage *s, struct error *err)
{
    struct text_ref prefix;
    enum status st = parse_str(v, "prefix", "##", &prefix, err);
    if (!st)
        st = take_text(s, prefix, "prefix", err);
    return st ? st : parse_bool(v, "cleanup", true, &s->cleanup, err);
}

static enum status parse_bpe(const json *v, struct dec_stage *s, struct error *err)
{
    struct text_ref suffix;
    enum status st = parse_str(v, "suffix", "</w>", &suffix, err);
    return st ? st : take_text(s, suffix, "suffix", err);
}

static enum status parse_stage(void *arg, const char *type, const json *v, struct error *err)
{
    static const struct {
        const char *type;
        enum dec_kind kind;
        enum status (*parse)(const json *, struct dec_stage *, struct error *);
    } kinds[] = {
        {"ByteLevel", DEC_BYTE_LEVEL, NULL},
        {"ByteFallback", DEC_BYTE_FALLBACK, NULL},
        {"Fuse", DEC_FUSE, NULL},
        {"Strip", DEC_STRIP, parse_strip},
        {"Replace", DEC_REPLACE, parse_replace},
        {"Metaspace", DEC_METASPACE, parse_metaspace},
        {"WordPiece", DEC_WORDPIECE, parse_wordpiece},
        {"BPEDecoder", DEC_BPE, parse_bpe},
    };
    struct decoder *d = arg;
    for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
        if (strcmp(kinds[i].type, type))
            continue;
        struct dec_stage *s = &d->stages[d->n];
        enum dec_kind before = d->n ? s[-1].kind : DEC_JOIN;
        *s = (struct dec_stage){.kind = kinds[i].kind};
        s->fused = d->n && (s[-1].fused || before == DEC_FUSE || before == DEC_BYTE_LEVEL);
        d->n++;
        return kinds[i].parse ? kinds[i].parse(v, s, err) : ST_OK;
    }
    return err_set(err, ST_UNSUPPORTED, "decoder of unknown type \"%.60s\"", type);
}

enum status decoder_parse(const json *v, struct decoder *out, struct error *err)
{
    enum status st = parse_components(v, "decoders", parse_stage, out, err);
    enum json_kind kind = json_kind_of(v);
    if (!st && (kind == JSON_ABSENT || kind == JSON_NULL_))
        out->stages[out->n++] = (struct dec_stage){.kind = DEC_JOIN};
    return st;
}

void decoder_fini(struct decoder *d)
{
    for (size_t i = 0; i < d->n; i++) {
        free(d->stages[i].content);
        regex_free(d->stages[i].pattern);
    }
    d->n = 0;
}
