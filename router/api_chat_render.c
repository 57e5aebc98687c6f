/* Chats through the model's template to ids.
 *
 * Templates were written for Hugging Face's data model, so what they get is made like it: a
 * message's text parts are joined to one string (or stay parts, where the template wants those),
 * arguments of earlier tool calls are objects (or text), what is not there is None. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "router/api.h"

/* ---- the template's variables ---- */

struct view { /* how a chat is shown to the template */
    const struct api_request *r;
    struct template_habits habits;
    bool filled; /* tools say all that they may leave out, and are a list where there are none */
};

static void text_of(const json *content, struct buf *text)
{
    if (json_kind_of(content) != JSON_ARR) {
        buf_append(text, json_as_str(content, ""), json_str_len(content));
        return;
    }
    for (size_t k = 0; k < json_count(content); k++) {
        const json *part = json_at(content, k), *s = part;
        if (json_kind_of(part) == JSON_OBJ)
            s = json_get(part, json_as_str(json_get(part, "type"), ""));
        if (k)
            buf_putc(text, '\n');
        buf_append(text, json_as_str(s, ""), json_str_len(s));
    }
}

static void put_content(struct jw *w, const struct view *v, const json *m)
{
    const json *content = json_get(m, "content");
    struct buf text = {0};
    bool none = json_str_len(content) == 0 && json_count(content) == 0;
    if (v->habits.content_none && none && json_count(json_get(m, "tool_calls"))) {
        jw_null(w);
        return;
    }
    text_of(content, &text);
    if (v->habits.content_parts) {
        jw_arr(w);
        jw_obj(w);
        jw_key(w, "type");
        jw_str(w, "text");
        jw_key(w, "text");
    }
    jw_strn(w, text.data ? text.data : "", text.len);
    if (v->habits.content_parts) {
        jw_end_obj(w);
        jw_end_arr(w);
    }
    w->out->failed |= text.failed;
    buf_fini(&text);
}

static void put_arguments(struct jw *w, const struct view *v, const json *arguments)
{
    json *parsed = NULL;
    bool text = json_kind_of(arguments) == JSON_STR;
    if (v->habits.arguments_text && arguments && !text) {
        struct buf dump = {0};
        json_dump(arguments, &dump);
        jw_strn(w, dump.data ? dump.data : "", dump.len);
        buf_fini(&dump);
    } else if (!arguments) {
        jw_raw(w, v->habits.arguments_text ? "\"{}\"" : "{}");
    } else if (text && !v->habits.arguments_text &&
               json_read(json_as_str(arguments, ""), json_str_len(arguments), &parsed, NULL) ==
                   ST_OK &&
               json_kind_of(parsed) == JSON_OBJ) {
        jw_json(w, parsed);
    } else {
        jw_json(w, arguments);
    }
    json_free(parsed);
}

/* {"id", "type", "function": {"name", "arguments"}} */
static void put_tool_call(struct jw *w, const struct view *v, const json *call)
{
    const json *f = json_get(call, "function");
    jw_obj(w);
    jw_key(w, "id");
    jw_str(w, json_as_str(json_get(call, "id"), ""));
    jw_key(w, "type");
    jw_str(w, "function");
    jw_key(w, "function");
    jw_obj(w);
    jw_key(w, "name");
    jw_json(w, json_get(f, "name"));
    jw_key(w, "arguments");
    put_arguments(w, v, json_get(f, "arguments"));
    jw_end_obj(w);
    jw_end_obj(w);
}

/* Clients send reasoning back under the name that they got it by; templates know one or the other.
 * Those that call it "thinking" refuse it beside content and calls both. */
static void put_reasoning(struct jw *w, const struct view *v, const json *m)
{
    static const char *const names[] = {"reasoning_content", "reasoning", "thinking"};
    const json *text = NULL;
    bool both = json_count(json_get(m, "tool_calls")) && json_str_len(json_get(m, "content"));
    for (size_t i = 0; i < 3 && !text; i++) {
        if (json_kind_of(json_get(m, names[i])) == JSON_STR)
            text = json_get(m, names[i]);
    }
    for (size_t i = 0; i < 3 && text; i++) {
        if (i == 2 && (!v->habits.thinking || both))
            continue;
        jw_key(w, names[i]);
        jw_json(w, text);
    }
}

static void put_message(struct jw *w, const struct view *v, const json *m)
{
    static const char *const kept[] = {"name", "tool_call_id"};
    const char *role = json_as_str(json_get(m, "role"), "");
    const json *calls = json_get(m, "tool_calls");
    bool system = strcmp(role, "developer") == 0 && !v->habits.developer;
    jw_obj(w);
    jw_key(w, "role");
    jw_str(w, system ? "system" : role);
    jw_key(w, "content");
    put_content(w, v, m);
    for (size_t i = 0; i < sizeof kept / sizeof *kept; i++) {
        const json *x = json_get(m, kept[i]);
        if (json_kind_of(x) == JSON_STR) {
            jw_key(w, kept[i]);
            jw_json(w, x);
        }
    }
    put_reasoning(w, v, m);
    if (json_count(calls)) {
        jw_key(w, "tool_calls");
        jw_arr(w);
        for (size_t i = 0; i < json_count(calls); i++)
            put_tool_call(w, v, json_at(calls, i));
        jw_end_arr(w);
    }
    jw_end_obj(w);
}

static void put_filled_tool(struct jw *w, const json *tool)
{
    const json *f = json_get(tool, "function");
    jw_obj(w);
    jw_key(w, "type");
    jw_str(w, "function");
    jw_key(w, "function");
    jw_obj(w);
    for (void *it = json_first(f); it; it = json_next(f, it)) {
        if (json_kind_of(json_iter_value(it)) == JSON_NULL_)
            continue;
        jw_key(w, json_iter_key(it));
        jw_json(w, json_iter_value(it));
    }
    if (json_kind_of(json_get(f, "description")) != JSON_STR) {
        jw_key(w, "description");
        jw_str(w, "");
    }
    if (json_kind_of(json_get(f, "parameters")) != JSON_OBJ) {
        jw_key(w, "parameters");
        jw_raw(w, "{\"type\": \"object\", \"properties\": {}}");
    }
    jw_end_obj(w);
    jw_end_obj(w);
}

static void put_tools(struct jw *w, const struct view *v)
{
    const struct api_request *r = v->r;
    bool none = !json_count(r->tools) || r->tool_choice == API_TOOLS_NONE;
    jw_key(w, "tools");
    if (none && !v->filled) {
        jw_null(w);
        return;
    }
    jw_arr(w);
    for (size_t i = 0; !none && i < json_count(r->tools); i++) {
        const json *tool = json_at(r->tools, i);
        if (!api_tool_allowed(r, tool))
            continue;
        if (v->filled)
            put_filled_tool(w, tool);
        else
            jw_json(w, tool);
    }
    jw_end_arr(w);
}

static bool is_ours(const char *key)
{
    static const char *const ours[] = {
        "messages", "tools", "documents", "add_generation_prompt", "bos_token", "eos_token"};
    for (size_t i = 0; i < sizeof ours / sizeof *ours; i++) {
        if (strcmp(key, ours[i]) == 0)
            return true;
    }
    return false;
}

/* Words for thinking that stand outside of chat_template_kwargs, where those do not say it. */
static void put_thinking(struct jw *w, const struct api_request *r)
{
    const json *kwargs = r->template_kwargs;
    const char *effort = r->reasoning_effort;
    bool none = effort && strcmp(effort, "none") == 0;
    if (effort && json_kind_of(json_get(kwargs, "reasoning_effort")) == JSON_ABSENT) {
        jw_key(w, "reasoning_effort");
        jw_str(w, effort);
    }
    if ((r->enable_thinking || none) &&
        json_kind_of(json_get(kwargs, "enable_thinking")) == JSON_ABSENT) {
        jw_key(w, "enable_thinking");
        jw_bool(w, r->enable_thinking ? json_as_bool(r->enable_thinking, true) : false);
    }
}

static void put_variables(struct buf *out, const struct view *v)
{
    const struct api_request *r = v->r;
    struct jw w = jw_begin(out);
    jw_obj(&w);
    jw_key(&w, "messages");
    jw_arr(&w);
    for (size_t i = 0; i < json_count(r->messages); i++)
        put_message(&w, v, json_at(r->messages, i));
    jw_end_arr(&w);
    jw_key(&w, "add_generation_prompt");
    jw_bool(&w, r->add_generation_prompt);
    put_tools(&w, v);
    jw_key(&w, "documents");
    if (json_count(r->documents))
        jw_json(&w, r->documents);
    else
        jw_null(&w);
    put_thinking(&w, r);
    for (void *it = json_first(r->template_kwargs); it; it = json_next(r->template_kwargs, it)) {
        if (!is_ours(json_iter_key(it))) {
            jw_key(&w, json_iter_key(it));
            jw_json(&w, json_iter_value(it));
        }
    }
    jw_end_obj(&w);
}

/* Cuts the rendered text behind the last message's own content. */
static void cut_after_final(const struct api_request *r, struct template_result *t)
{
    struct buf content = {0};
    text_of(json_get(json_at(r->messages, json_count(r->messages) - 1), "content"), &content);
    const char *last = content.data ? content.data : "";
    size_t len = content.len;
    /* Templates trim. */
    while (len && strchr(" \t\r\n", last[len - 1]))
        len--;
    while (len && strchr(" \t\r\n", last[0])) {
        last++;
        len--;
    }
    size_t keep = t->text.len;
    for (size_t at = t->text.len >= len ? t->text.len - len + 1 : 0; len && at-- > 0;) {
        if (memcmp(t->text.data + at, last, len) == 0) {
            keep = at + len;
            break;
        }
    }
    t->text.len = keep;
    size_t left = keep, n = 0;
    for (; n < t->n_spans && left; n++) {
        if (t->spans[n].len > left)
            t->spans[n].len = left;
        left -= t->spans[n].len;
    }
    t->n_spans = n;
    buf_fini(&content);
}

static const char *token_text(const struct tokenizer *t, int32_t id)
{
    const char *s = id >= 0 ? tokenizer_token(t, id) : NULL;
    return s ? s : "";
}

static enum status render(const struct api_chat *c, const struct chat_template *t,
                          const struct view *v, struct template_result *out, struct error *why)
{
    struct buf text = {0};
    json *variables = NULL;
    put_variables(&text, v);
    enum status st = text.failed ? err_set(why, ST_NO_MEMORY, "Out of memory.")
                                 : json_read(text.data, text.len, &variables, why);
    if (st == ST_OK) {
        const struct template_args args = {
            .variables = variables,
            .bos_token = token_text(c->tokenizer, tokenizer_bos(c->tokenizer)),
            .eos_token = token_text(c->tokenizer, tokenizer_eos(c->tokenizer))};
        st = template_render(t, &args, out, why);
    }
    json_free(variables);
    buf_fini(&text);
    return st;
}

/* Templates that fail at what tools may leave out get it filled in. */
static enum status render_either(const struct api_chat *c, const struct chat_template *t,
                                 const struct view *v, struct template_result *out,
                                 struct error *why)
{
    enum status st = render(c, t, v, out, why);
    if (st != ST_INVALID)
        return st;
    const struct view filled = {v->r, v->habits, true};
    struct template_result again = {0};
    struct error ignored = {0};
    if (render(c, t, &filled, &again, &ignored) != ST_OK) {
        template_result_fini(&again);
        return st;
    }
    template_result_fini(out);
    *out = again;
    return ST_OK;
}

static enum output_place place_of(const struct output_reasoning *reasoning,
                                  const struct api_request *r, const struct template_result *t)
{
    const char *text = t->text.data ? t->text.data : "";
    if (!reasoning)
        return OUTPUT_BEHIND_REASONING;
    if (!r->continue_final)
        return output_reasoning_place(reasoning, text, t->text.len);
    struct buf last = {0};
    text_of(json_get(json_at(r->messages, json_count(r->messages) - 1), "content"), &last);
    bool inside = output_reasoning_is_unfinished(reasoning, last.data ? last.data : "", last.len);
    buf_fini(&last);
    return inside ? OUTPUT_WITHIN_REASONING : OUTPUT_BEHIND_REASONING;
}

bool api_chat_ids(const struct api_chat *c, const struct api_request *r, struct ids *out,
                  struct api_error *err)
{
    struct template_result rendered = {0};
    struct chat_template *own = NULL;
    struct error why = {0};
    enum status st = ST_OK;
    if (r->chat_template)
        st = template_parse(r->chat_template, strlen(r->chat_template), &own, &why);
    bool tools =
        !own && c->tool_template && json_count(r->tools) && r->tool_choice != API_TOOLS_NONE;
    const struct chat_template *t = own ? own : tools ? c->tool_template : c->template_;
    const struct view view = {r, tools ? c->tool_habits : c->habits, false};
    if (st == ST_OK && !t)
        return api_fail(err, 400, "unsupported_value", "messages",
                        "The model has no chat template: only completions can be made with it.");
    if (st == ST_OK)
        st = render_either(c, t, &view, &rendered, &why);
    if (st == ST_OK && r->continue_final)
        cut_after_final(r, &rendered);
    const char *text = rendered.text.data ? rendered.text.data : "";
    if (st == ST_OK && c->place)
        *c->place = place_of(c->reasoning, r, &rendered);
    if (st == ST_OK) {
        unsigned flags = TOKENIZE_PARSE_SPECIAL | (r->add_special ? TOKENIZE_ADD_SPECIAL : 0);
        struct spanned_text spanned = {text, rendered.spans, rendered.n_spans};
        st = tokenizer_encode_spans(c->tokenizer, &spanned, flags, out, &why);
    }
    template_result_fini(&rendered);
    template_free(own);
    if (st == ST_OK)
        return true;
    return api_fail(err, st == ST_INVALID ? 400 : 500,
                    st == ST_INVALID ? "invalid_value" : "internal_error", "messages", "%s",
                    why.text);
}
