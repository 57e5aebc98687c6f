#include "router/api_output.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/rng.h"
#include "router/api_tool_grammar.h"

#define CALLS_MAX 4096 /* of one choice; further ones are dropped */

/* ---- the plan ---- */

static bool known(void *owner, const char *tool)
{
    const struct api_output *o = owner;
    return api_tool_find(o->plan->tools, tool) != NULL;
}

/* "type" may be a word or an array of such; one that allows a string beside others says nothing. */
static enum output_type type_of(void *owner, const char *tool, const char *parameter)
{
    const struct api_output *o = owner;
    const json *parameters = json_get(api_tool_find(o->plan->tools, tool), "parameters");
    const json *schema = json_get(json_get(parameters, "properties"), parameter);
    const json *type = json_get(schema, "type");
    if (json_kind_of(type) == JSON_STR)
        return strcmp(json_as_str(type, ""), "string") == 0 ? OUTPUT_TYPE_STRING
                                                            : OUTPUT_TYPE_OTHER;
    bool words = json_count(json_get(schema, "enum")) > 0;
    for (size_t i = 0; i < json_count(json_get(schema, "enum")); i++)
        words &= json_kind_of(json_at(json_get(schema, "enum"), i)) == JSON_STR;
    return words ? OUTPUT_TYPE_STRING : OUTPUT_TYPE_UNKNOWN;
}

static bool copy_tools(struct api_output_plan *p, const struct api_request *r)
{
    struct buf text = {0};
    struct jw w = jw_begin(&text);
    jw_arr(&w);
    for (size_t i = 0; i < json_count(r->tools); i++) {
        if (api_tool_allowed(r, json_at(r->tools, i)))
            jw_json(&w, json_at(r->tools, i));
    }
    jw_end_arr(&w);
    bool ok = !text.failed && json_read(text.data, text.len, &p->tools, NULL) == ST_OK;
    buf_fini(&text);
    return ok;
}

bool api_output_plan_init(struct api_output_plan *p, const struct api_request *r,
                          struct api_output_formats formats, bool inside_reasoning)
{
    bool calls = r->tools && r->tool_choice != API_TOOLS_NONE;
    bool forced = api_tool_must(r);
    *p = (struct api_output_plan){.parallel = r->parallel_calls,
                                  .include_reasoning = r->include_reasoning};
    if (forced && r->tool_name)
        snprintf(p->forced_name, sizeof p->forced_name, "%s", r->tool_name);
    p->args = (struct output_args){.tools = calls ? formats.tools : NULL,
                                   .reasoning = r->separate_reasoning ? formats.reasoning : NULL,
                                   .inside_reasoning = inside_reasoning,
                                   .skip_special = r->skip_special,
                                   .whole = !r->stream,
                                   .forced = forced,
                                   .forced_name = p->forced_name[0] ? p->forced_name : NULL};
    p->args.led = r->sampling.grammar.lead > 0;
    p->args.keep_blanks = p->args.led && r->grammar_keeps_blanks;
    p->parse = r->kind == API_CHAT && (p->args.tools || p->args.reasoning || forced);
    return !p->parse || !calls || copy_tools(p, r);
}

void api_output_plan_fini(struct api_output_plan *p)
{
    json_free(p->tools);
    p->tools = NULL;
}

/* ---- from the parser ---- */

static void make_id(struct api_call *c, const char *own, bool short_id)
{
    static const char letters[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789";
    if (own[0] && strlen(own) < sizeof c->id) {
        snprintf(c->id, sizeof c->id, "%s", own);
        return;
    }
    size_t n = short_id ? 9 : 24, at = short_id ? 0 : 5;
    if (!short_id)
        memcpy(c->id, "call_", 5);
    for (size_t i = 0; i < n; i++)
        c->id[at++] = letters[rng_entropy() % (sizeof letters - 1)];
    c->id[at] = 0;
}

static void begin_call(struct api_output *o, const struct output_event *ev)
{
    struct api_calls *a = &o->calls;
    if (a->n == CALLS_MAX || (a->n && !o->plan->parallel))
        return;
    if (a->n == a->cap) {
        size_t cap = a->cap ? 2 * a->cap : 4;
        struct api_call *v = realloc(a->v, cap * sizeof *v);
        if (!v) {
            o->failed = true;
            return;
        }
        a->v = v;
        a->cap = cap;
    }
    struct api_call *c = &a->v[a->n++];
    *c = (struct api_call){0};
    const struct output_format *f = o->plan->args.tools;
    make_id(c, ev->id, f && f->short_ids);
    snprintf(c->name, sizeof c->name, "%.*s", (int)ev->len, ev->text);
}

static void on_event(void *owner, const struct output_event *ev)
{
    struct api_output *o = owner;
    switch (ev->kind) {
    case OUTPUT_CONTENT:
        buf_append(o->content, ev->text, ev->len);
        break;
    case OUTPUT_REASONING:
        if (o->plan->include_reasoning)
            buf_append(&o->reasoning, ev->text, ev->len);
        break;
    case OUTPUT_CALL_BEGIN:
        begin_call(o, ev);
        break;
    case OUTPUT_CALL_ARGUMENTS:
        if ((size_t)ev->index < o->calls.n)
            buf_append(&o->calls.v[ev->index].arguments, ev->text, ev->len);
        break;
    case OUTPUT_CALL_END:
        break;
    }
}

static const struct output_ops ops = {on_event, known, type_of};

/* ---- one choice ---- */

bool api_output_init(struct api_output *o, const struct api_output_plan *plan, struct buf *content)
{
    struct output_args args = plan->args;
    *o = (struct api_output){.plan = plan, .content = content};
    args.ops = &ops;
    args.owner = o;
    o->parser = output_parser_create(&args);
    return o->parser != NULL;
}

void api_output_fini(struct api_output *o)
{
    output_parser_destroy(o->parser);
    for (size_t i = 0; i < o->calls.n; i++)
        buf_fini(&o->calls.v[i].arguments);
    free(o->calls.v);
    buf_fini(&o->reasoning);
    *o = (struct api_output){0};
}

void api_output_push(struct api_output *o, struct api_text_ref text, size_t special, bool token)
{
    size_t plain = text.len - special;
    if (token && output_parser_reasons(o->parser))
        o->reasoning_tokens++;
    if (plain && !output_parser_push(o->parser, (struct output_piece){text.text, plain, false}))
        o->failed = true;
    if (special &&
        !output_parser_push(o->parser, (struct output_piece){text.text + plain, special, true}))
        o->failed = true;
}

void api_output_finish(struct api_output *o, bool cut)
{
    if (!output_parser_finish(o->parser, cut))
        o->failed = true;
}

bool api_output_calls_pending(const struct api_output *o)
{
    for (size_t i = o->calls.first; i < o->calls.n; i++) {
        if (!o->calls.v[i].said || o->calls.v[i].arguments.len)
            return true;
    }
    return false;
}

bool api_output_pending(const struct api_output *o)
{
    return o->reasoning.len > 0 || api_output_calls_pending(o);
}

void api_output_clear(struct api_output *o)
{
    buf_clear(&o->reasoning);
    for (size_t i = o->calls.first; i < o->calls.n; i++) {
        o->calls.v[i].said = true;
        buf_clear(&o->calls.v[i].arguments);
    }
    o->calls.first = o->calls.n ? o->calls.n - 1 : 0;
}
