#include "tokenizer/grammar/compile.h"

#include <string.h>

#include "base/utf8.h"
#include "tokenizer/grammar/charnet.h"
#include "tokenizer/grammar/grammar.h"
#include "tokenizer/grammar/vocab.h"

#define JSON_DEPTH_MAX 100
#define JSON_MEMORY_MAX (64u << 20)
#define CHOICES_MAX 20000

const char *grammar_kind_name(enum grammar_kind kind)
{
    static const char *const names[GRAMMAR_KINDS] = {
        "none", "json_object", "json_schema", "regex", "grammar", "choice", "structure"};
    return kind >= 0 && kind < GRAMMAR_KINDS ? names[kind] : "unknown";
}

static json *read_text(struct builder *b, const char *text, size_t len)
{
    struct json_limits limits = {.depth = JSON_DEPTH_MAX, .memory_bytes = JSON_MEMORY_MAX};
    json *root = NULL;
    struct error why = {0};
    if (json_read_limited(text, len, limits, &root, &why) != ST_OK)
        build_fail(b, why.status, "not JSON: %s", why.text);
    return root;
}

static uint32_t compile_choice(struct builder *b, const json *list)
{
    uint32_t rule = build_rule(b, "root");
    if (json_kind_of(list) != JSON_ARR || json_count(list) == 0)
        build_fail(b, ST_INVALID, "#: a choice must be an array of strings that is not empty");
    else if (json_count(list) > CHOICES_MAX)
        build_fail(b, ST_UNSUPPORTED, "#: a choice of more than %d", CHOICES_MAX);
    for (size_t i = 0; i < json_count(list) && b->status == ST_OK; i++) {
        const json *v = json_at(list, i);
        if (json_kind_of(v) != JSON_STR)
            build_fail(b, ST_INVALID, "#/%zu: a choice must be a string", i);
        else
            build_eps(b, build_text(b, b->rules[rule].start, json_as_str(v, ""), json_str_len(v)),
                      b->rules[rule].end);
    }
    return rule;
}

static uint32_t compile_regex(struct builder *b, const char *text, size_t len)
{
    struct charnet net = {0};
    struct charnet_pattern p = {.text = text, .len = len};
    uint32_t rule = build_rule(b, "root");
    charnet_compile(b, &p, &net);
    if (b->status == ST_OK)
        charnet_lay_out_to(&net, b, b->rules[rule].start, b->rules[rule].end, false);
    charnet_fini(&net);
    return rule;
}

static uint32_t compile_json(struct builder *b, enum grammar_kind kind, const json *root)
{
    if (b->status != ST_OK)
        return 0;
    if (kind == GRAMMAR_JSON_SCHEMA)
        return schema_compile(b, root, "");
    return kind == GRAMMAR_CHOICE ? compile_choice(b, root) : structure_compile(b, root);
}

/* Of a schema that contradicts itself: where. What it was rewritten to has no place. */
static void name_dead(const struct builder *b, enum grammar_kind kind, const json *root)
{
    struct buf place = {0};
    buf_putc(&place, '#');
    if (root && b->dead &&
        (kind == GRAMMAR_STRUCTURE ? structure_find : schema_find)(root, b->dead, &place))
        err_set(b->err, ST_INVALID, "%.*s: nothing can match: no value fulfils this schema",
                place.len > 150 ? 150 : (int)place.len, place.data);
    buf_fini(&place);
}

enum status grammar_compile(enum grammar_kind kind, const char *text, size_t len,
                            struct grammar **out, struct error *err)
{
    return grammar_compile_for(NULL, kind, text, len, out, err);
}

enum status grammar_compile_for(const struct grammar_vocab *v, enum grammar_kind kind,
                                const char *text, size_t len, struct grammar **out,
                                struct error *err)
{
    const struct grammar_source source = {.kind = kind, .text = text, .len = len};
    return grammar_compile_source(v, &source, out, err);
}

/* First what `lead` says, then `rule`. */
static uint32_t put_behind(struct builder *b, const json *lead, uint32_t rule)
{
    if (b->status != ST_OK)
        return rule;
    uint32_t root = build_rule(b, "root"), first = structure_compile(b, lead);
    if (b->status != ST_OK)
        return root;
    uint32_t at = build_call_once(b, b->rules[root].start, first);
    build_eps(b, build_call_once(b, at, rule), b->rules[root].end);
    return root;
}

enum status grammar_compile_source(const struct grammar_vocab *v, const struct grammar_source *s,
                                   struct grammar **out, struct error *err)
{
    struct builder b = {.err = err, .spelled = v ? v->spelled : NULL};
    uint32_t root = 0;
    json *document = NULL, *lead = NULL;
    enum grammar_kind kind = s->kind;
    const char *text = s->lead ? s->text + s->lead : s->text;
    size_t len = s->len - s->lead;
    if (s->lead > s->len || s->lead > GRAMMAR_LEAD_MAX)
        return err_set(err, ST_INVALID, "what comes first has too many bytes");
    if (len > GRAMMAR_TEXT_MAX)
        return err_set(err, ST_UNSUPPORTED, "%zu bytes, at most %u", len, GRAMMAR_TEXT_MAX);
    if (kind == GRAMMAR_JSON_OBJECT)
        root = schema_compile_any_object(&b);
    else if (kind == GRAMMAR_REGEX)
        root = compile_regex(&b, text, len);
    else if (kind == GRAMMAR_GBNF)
        root = gbnf_compile(&b, text, len);
    else if (kind > GRAMMAR_NONE && kind < GRAMMAR_KINDS)
        root = compile_json(&b, kind, document = read_text(&b, text, len));
    else
        build_fail(&b, ST_INVALID, "no such kind of grammar");
    if (s->lead > 0)
        root = put_behind(&b, lead = read_text(&b, s->text, s->lead), root);
    struct grammar *g = NULL;
    enum status st = build_finish(&b, root, &g);
    name_dead(&b, kind, document);
    json_free(document);
    json_free(lead);
    build_fini(&b);
    if (st == ST_OK)
        *out = g;
    return st;
}
