/* What the text has to be: response_format, and the names that vLLM (structured_outputs, guided_*),
 * llama.cpp (grammar, json_schema) and SGLang (regex, ebnf) have for it. */
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "router/api_fields.h"
#include "router/output/output_lead.h"
#include "router/router.h"

/* Each prompt's queued request holds a copy. */
#define COPIES_BYTES_MAX (16u << 20)

struct found {
    struct fields *p;
    struct api_request *r;
};

static void unsupported(struct fields *p, const char *param, const char *why)
{
    if (p->err->status == 0)
        api_fail(p->err, 400, "unsupported_value", param, "%s", why);
}

/* One way to ask is enough: two could contradict each other. */
static bool take(struct found *f, const char *param, enum msg_grammar_kind kind)
{
    if (f->p->err->status)
        return false;
    if (f->r->grammar_param && strcmp(param, f->r->grammar_param) == 0)
        return api_fail(f->p->err, 400, "invalid_value", param,
                        "'%s' asks for several things: only one of them can hold.", param);
    if (f->r->sampling.grammar.kind != MSG_GRAMMAR_NONE)
        return api_fail(f->p->err, 400, "invalid_value", param,
                        "'%s' and '%s' are given: only one of them can hold.", param,
                        f->r->grammar_param);
    f->r->sampling.grammar.kind = kind;
    f->r->grammar_param = param;
    return true;
}

static void set_text(struct found *f, const char *param, const char *text, size_t len)
{
    if (len > MSG_GRAMMAR_BYTES_MAX) {
        api_fail(f->p->err, 400, "invalid_value", param, "'%s' has %zu bytes, at most %u allowed.",
                 param, len, MSG_GRAMMAR_BYTES_MAX);
        return;
    }
    f->r->sampling.grammar.text = text;
    f->r->sampling.grammar.len = (uint32_t)len;
}

/* A string in the body, which lives as long as the request. */
static void take_string(struct found *f, const char *param, enum msg_grammar_kind kind,
                        const json *v)
{
    if (f->p->err->status)
        return;
    if (json_kind_of(v) != JSON_STR)
        field_wrong_type(f->p, param, "a string", v);
    else if (take(f, param, kind))
        set_text(f, param, json_as_str(v, ""), json_str_len(v));
}

/* JSON that is passed on as text. */
static void take_json(struct found *f, const char *param, enum msg_grammar_kind kind, const json *v)
{
    if (!take(f, param, kind))
        return;
    struct buf *text = &f->r->grammar_text;
    json_dump(v, text);
    if (text->failed)
        api_fail(f->p->err, 500, "internal_error", NULL, "Out of memory.");
    else
        set_text(f, param, text->data, text->len);
}

/* A schema: an object, a boolean, or the text of one. */
static void take_schema(struct found *f, const char *param, const json *v)
{
    enum json_kind kind = json_kind_of(v);
    if (kind == JSON_STR)
        take_string(f, param, MSG_GRAMMAR_JSON_SCHEMA, v);
    else if (kind == JSON_OBJ || kind == JSON_BOOL)
        take_json(f, param, MSG_GRAMMAR_JSON_SCHEMA, v);
    else if (f->p->err->status == 0)
        field_wrong_type(f->p, param, "a JSON schema", v);
}

static void take_choice(struct found *f, const char *param, const json *v)
{
    if (f->p->err->status == 0 && json_kind_of(v) != JSON_ARR)
        field_wrong_type(f->p, param, "an array of strings", v);
    else
        take_json(f, param, MSG_GRAMMAR_CHOICE, v);
}

static void parse_response_format(struct found *f)
{
    static const char param[] = "response_format";
    const json *format = field_kind(f->p, param, JSON_OBJ, "an object");
    const char *type = json_as_str(json_get(format, "type"), "");
    const json *schema = json_get(format, "schema"); /* as llama.cpp's server has it */
    if (!format || strcmp(type, "text") == 0)
        return;
    if (strcmp(type, "json_object") == 0) {
        if (schema)
            take_schema(f, param, schema);
        else
            take(f, param, MSG_GRAMMAR_JSON_OBJECT);
        return;
    }
    if (strcmp(type, "json_schema") != 0) {
        unsupported(f->p, param,
                    "'response_format' supports the types \"text\", \"json_object\" and "
                    "\"json_schema\".");
        return;
    }
    const json *named = json_get(format, "json_schema");
    struct fields inner = {.body = named, .rules = f->p->rules, .err = f->p->err};
    if (named && json_kind_of(named) != JSON_OBJ)
        field_wrong_type(f->p, param, "an object in 'json_schema'", named);
    else if (named) {
        field_str(&inner, "name", NULL, API_NAME_BYTES_MAX);
        field_str(&inner, "description", NULL, 1 << 20);
        field_bool(&inner, "strict", true); /* it always is */
        schema = json_get(named, "schema");
    }
    if (schema && json_kind_of(schema) != JSON_NULL_)
        take_schema(f, param, schema);
    else if (f->p->err->status == 0)
        api_fail(f->p->err, 400, "missing_required_parameter", param,
                 "'response_format' of type \"json_schema\" needs 'json_schema.schema'.");
}

static void parse_structured_outputs(struct found *f)
{
    static const char param[] = "structured_outputs";
    const json *all = field_kind(f->p, param, JSON_OBJ, "an object");
    struct fields inner = {.body = all, .rules = f->p->rules, .err = f->p->err};
    const json *v;
    if (!all)
        return;
    if ((v = field_get(&inner, "json")) != NULL)
        take_schema(f, param, v);
    if ((v = field_get(&inner, "regex")) != NULL)
        take_string(f, param, MSG_GRAMMAR_REGEX, v);
    if ((v = field_get(&inner, "grammar")) != NULL)
        take_string(f, param, MSG_GRAMMAR_GBNF, v);
    if ((v = field_get(&inner, "choice")) != NULL)
        take_choice(f, param, v);
    if (field_bool(&inner, "json_object", false))
        take(f, param, MSG_GRAMMAR_JSON_OBJECT);
    if (field_get(&inner, "structural_tag") != NULL)
        unsupported(f->p, param, "'structural_tag' is not supported by this server.");
    if (f->p->err->status == 0 && f->r->sampling.grammar.kind == MSG_GRAMMAR_NONE)
        api_fail(f->p->err, 400, "invalid_value", param,
                 "'structured_outputs' needs one of json, regex, choice, grammar, json_object.");
}

void api_parse_grammar(struct fields *p, struct api_request *r)
{
    static const struct {
        const char *key;
        enum msg_grammar_kind kind;
    } strings[] = {
        {"guided_regex", MSG_GRAMMAR_REGEX}, {"guided_grammar", MSG_GRAMMAR_GBNF},
        {"grammar", MSG_GRAMMAR_GBNF},       {"regex", MSG_GRAMMAR_REGEX},
        {"ebnf", MSG_GRAMMAR_GBNF},
    };
    struct found f = {.p = p, .r = r};
    const json *v;
    parse_response_format(&f);
    parse_structured_outputs(&f);
    for (size_t i = 0; i < sizeof strings / sizeof *strings; i++) {
        v = field_get(p, strings[i].key);
        if (v != NULL && !(json_kind_of(v) == JSON_STR && json_str_len(v) == 0))
            take_string(&f, strings[i].key, strings[i].kind, v);
    }
    if ((v = field_get(p, "guided_json")) != NULL)
        take_schema(&f, "guided_json", v);
    if ((v = field_get(p, "json_schema")) != NULL)
        take_schema(&f, "json_schema", v);
    if ((v = field_get(p, "guided_choice")) != NULL)
        take_choice(&f, "guided_choice", v);
}

/* The last bit is kept for what is known of it: that its texts may begin with a blank. */
static uint64_t hash_of(const struct msg_grammar *g)
{
    return hash_bytes((uint64_t)g->kind + 1, g->text, g->len) & ~UINT64_C(1);
}

static bool may_begin_with_blank(const struct grammar *g)
{
    struct grammar_run *run = NULL;
    bool any = grammar_run_create(g, NULL, &run, NULL) != ST_OK;
    for (const char *blank = " \t\r\n"; *blank && !any; blank++) {
        struct grammar_state at = grammar_begin(run);
        any = grammar_accept_bytes(run, &at, blank, 1, NULL) != ST_INVALID;
    }
    grammar_run_free(run);
    return any;
}

static enum status look_at(struct router *r, const struct msg_grammar *g, bool *blank,
                           struct error *why)
{
    struct grammar *compiled = NULL;
    enum status st = grammar_compile((enum grammar_kind)g->kind, g->text, g->len, &compiled, why);
    if (st == ST_OK) {
        uint64_t hash = hash_of(g);
        *blank = may_begin_with_blank(compiled);
        atomic_store(&r->grammars_seen[hash % ROUTER_GRAMMARS_SEEN], hash | *blank);
    }
    grammar_free(compiled);
    return st;
}

bool prompt_knows_grammar(const struct router *r, const struct msg_grammar *g)
{
    uint64_t hash = hash_of(g);
    return (atomic_load(&r->grammars_seen[hash % ROUTER_GRAMMARS_SEEN]) & ~UINT64_C(1)) == hash;
}

/* The nodes compile it anyway and refuse what is wrong; here it is refused before it waits for
 * them. What was right is remembered by its hash: a mistaken memory only moves the refusal. */
bool prompt_check_grammar(struct router *r, const struct msg_grammar *g, const char *param,
                          size_t copies, struct api_error *err)
{
    struct error why = {0};
    bool blank;
    if (g->kind == MSG_GRAMMAR_NONE)
        return true;
    if (g->len * copies > COPIES_BYTES_MAX)
        return api_fail(err, 400, "invalid_value", param,
                        "'%s' has %u bytes, which is too much for %zu prompts.", param, g->len,
                        copies);
    if (prompt_knows_grammar(r, g))
        return true;
    enum status st = look_at(r, g, &blank, &why);
    if (st == ST_OK)
        return true;
    if (st != ST_INVALID && st != ST_UNSUPPORTED)
        return api_fail(err, 500, "internal_error", NULL, "%s", why.text);
    /* Nobody asks for a structure: it is made of the tools' schemas. */
    enum grammar_kind kind =
        g->kind == MSG_GRAMMAR_STRUCTURE ? GRAMMAR_JSON_SCHEMA : (enum grammar_kind)g->kind;
    return api_fail(err, 400, st == ST_INVALID ? "invalid_value" : "unsupported_value", param,
                    "Invalid %s in '%s': %s", grammar_kind_name(kind), param, why.text);
}

/* ---- reasoning before it ---- */

/* Whether the request says that there is to be none. The template's own words go first. */
static bool says_no_thinking(const struct api_request *q)
{
    static const char *const switches[] = {"enable_thinking", "thinking"};
    const json *kwargs = q->template_kwargs;
    for (size_t i = 0; i < sizeof switches / sizeof *switches; i++) {
        const json *v = json_get(kwargs, switches[i]);
        if (json_kind_of(v) == JSON_BOOL)
            return !json_as_bool(v, true);
    }
    if (q->enable_thinking)
        return !json_as_bool(q->enable_thinking, true);
    const char *effort = json_as_str(json_get(kwargs, "reasoning_effort"), q->reasoning_effort);
    return effort && strcmp(effort, "none") == 0;
}

/* May the grammar's texts begin with a blank, as is known since it was checked. */
static bool begins_with_blank(struct router *r, const struct msg_grammar *g)
{
    bool blank = true;
    uint64_t hash = hash_of(g), seen = atomic_load(&r->grammars_seen[hash % ROUTER_GRAMMARS_SEEN]);
    if ((seen & ~UINT64_C(1)) == hash)
        return seen & 1;
    return look_at(r, g, &blank, NULL) != ST_OK || blank;
}

/* A blank behind the reasoning is none of the answer; where the answer itself may begin with one,
 * it could not be told which it is, and there is none. Where nothing comes before it, all is the
 * answer, also where the prompt has opened reasoning. */
bool prompt_lead_grammar(struct router *r, struct api_request *q, enum output_place *place,
                         struct api_error *err)
{
    struct msg_grammar *g = &q->sampling.grammar;
    struct buf text = {0};
    if (g->kind == MSG_GRAMMAR_NONE || q->kind != API_CHAT || !r->formats.reasoning)
        return true;
    if (!q->separate_reasoning || says_no_thinking(q))
        *place = OUTPUT_BEHIND_REASONING;
    if (*place == OUTPUT_BEHIND_REASONING)
        return true;
    q->grammar_keeps_blanks = begins_with_blank(r, g);
    const struct output_lead lead = {.reasoning = r->formats.reasoning,
                                     .within = *place == OUTPUT_WITHIN_REASONING,
                                     .gap = !q->grammar_keeps_blanks};
    output_lead_put(&lead, &text);
    size_t bytes = text.len;
    buf_append(&text, g->text, g->len);
    if (text.failed) {
        buf_fini(&text);
        return api_fail(err, 500, "internal_error", NULL, "Out of memory.");
    }
    buf_fini(&q->grammar_text);
    q->grammar_text = text;
    g->text = text.data;
    g->len = (uint32_t)text.len;
    g->lead = (uint32_t)bytes;
    return true;
}
