#include "router/api_tool_grammar.h"

#include <stdio.h>
#include <string.h>

static void put_literal(struct jw *w, const char *text)
{
    jw_obj(w);
    jw_key(w, "literal");
    jw_str(w, text);
    jw_end_obj(w);
}

/* Arguments are an object, also where the schema forgets to say so. */
static void put_schema(struct jw *w, size_t tool, const json *parameters)
{
    char at[64];
    snprintf(at, sizeof at, "/%zu/function/parameters", tool);
    jw_obj(w);
    jw_key(w, "at");
    jw_str(w, at);
    jw_key(w, "schema");
    jw_obj(w);
    if (json_kind_of(json_get(parameters, "type")) != JSON_STR) {
        jw_key(w, "type");
        jw_str(w, "object");
    }
    for (void *it = json_first(parameters); it; it = json_next(parameters, it)) {
        bool type = strcmp(json_iter_key(it), "type") == 0;
        if (type && json_kind_of(json_iter_value(it)) != JSON_STR)
            continue;
        jw_key(w, json_iter_key(it));
        jw_json(w, json_iter_value(it));
    }
    jw_end_obj(w);
    jw_end_obj(w);
}

/* {"name": "f", "parameters": ...} */
static void put_call(struct jw *w, size_t tool, const json *function)
{
    struct buf lead = {0};
    struct jw name = jw_begin(&lead);
    buf_puts(&lead, "{\"name\": ");
    jw_json(&name, json_get(function, "name"));
    buf_puts(&lead, ", \"parameters\": ");
    jw_obj(w);
    jw_key(w, "seq");
    jw_arr(w);
    put_literal(w, lead.data ? lead.data : "");
    put_schema(w, tool, json_get(function, "parameters"));
    put_literal(w, "}");
    jw_end_arr(w);
    jw_end_obj(w);
    w->out->failed |= lead.failed;
    buf_fini(&lead);
}

static void put_any_call(struct jw *w, const struct api_request *r)
{
    jw_obj(w);
    jw_key(w, "any");
    jw_arr(w);
    for (size_t i = 0; i < json_count(r->tools); i++) {
        if (api_tool_allowed(r, json_at(r->tools, i)))
            put_call(w, i, json_get(json_at(r->tools, i), "function"));
    }
    jw_end_arr(w);
    jw_end_obj(w);
}

static void put_calls(struct jw *w, const struct api_request *r)
{
    jw_obj(w);
    jw_key(w, "seq");
    jw_arr(w);
    put_literal(w, "[");
    put_any_call(w, r);
    if (r->parallel_calls) {
        jw_obj(w);
        jw_key(w, "repeat");
        jw_obj(w);
        jw_key(w, "seq");
        jw_arr(w);
        put_literal(w, ", ");
        put_any_call(w, r);
        jw_end_arr(w);
        jw_end_obj(w);
        jw_key(w, "min");
        jw_int(w, 0);
        jw_end_obj(w);
    }
    put_literal(w, "]");
    jw_end_arr(w);
    jw_end_obj(w);
}

void api_tool_grammar(const struct api_request *r, struct buf *out)
{
    struct jw w = jw_begin(out);
    if (r->tool_choice == API_TOOLS_REQUIRED) {
        put_calls(&w, r);
        return;
    }
    for (size_t i = 0; i < json_count(r->tools); i++) {
        const json *f = json_get(json_at(r->tools, i), "function");
        if (strcmp(json_as_str(json_get(f, "name"), ""), r->tool_name) == 0) {
            put_schema(&w, i, json_get(f, "parameters"));
            return;
        }
    }
}

bool api_force_tool(struct api_request *r, struct api_error *err)
{
    struct buf *text = &r->grammar_text;
    buf_clear(text);
    api_tool_grammar(r, text);
    if (text->failed)
        return api_fail(err, 500, "internal_error", NULL, "Out of memory.");
    if (text->len > MSG_GRAMMAR_BYTES_MAX)
        return api_fail(err, 400, "invalid_value", "tools",
                        "The schemas of the tools have %zu bytes, at most %u are allowed.",
                        text->len, MSG_GRAMMAR_BYTES_MAX);
    r->sampling.grammar = (struct msg_grammar){
        .kind = MSG_GRAMMAR_STRUCTURE, .text = text->data, .len = (uint32_t)text->len};
    r->grammar_param = "tools";
    return true;
}
