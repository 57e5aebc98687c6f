/* Chats: checking messages and tools, and rendering them through the model's template to ids.
 *
 * Templates were written for Hugging Face's data model, so what they get is made like it: a
 * message's text parts are joined to one string, arguments of earlier tool calls are objects, a
 * developer is a system. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "router/api.h"
#include "router/api_fields.h"

#define PARTS_MAX 4096

static const char *const roles[] = {"system", "developer", "user", "assistant", "tool", "function"};

static bool bad_message(struct api_error *err, size_t i, const char *code, const char *what)
{
    char param[64];
    snprintf(param, sizeof param, "messages[%zu]", i);
    return api_fail(err, 400, code, param, "Invalid message %zu: %s", i, what);
}

static bool check_content(const json *content, size_t i, struct api_error *err)
{
    enum json_kind kind = json_kind_of(content);
    if (kind == JSON_STR || kind == JSON_NULL_ || kind == JSON_ABSENT)
        return true;
    if (kind != JSON_ARR || json_count(content) > PARTS_MAX)
        return bad_message(err, i, "invalid_type",
                           "'content' must be a string or an array of content parts.");
    for (size_t k = 0; k < json_count(content); k++) {
        const json *part = json_at(content, k);
        const char *type = json_as_str(json_get(part, "type"), "");
        if (json_kind_of(part) == JSON_STR)
            continue;
        if (strcmp(type, "text") != 0 && strcmp(type, "refusal") != 0)
            return bad_message(err, i, "unsupported_value",
                               "only content parts of type \"text\" are supported.");
        if (json_kind_of(json_get(part, type)) != JSON_STR)
            return bad_message(err, i, "invalid_type", "a text part has no string \"text\".");
    }
    return true;
}

static bool check_message(const json *m, size_t i, struct api_error *err)
{
    if (json_kind_of(m) != JSON_OBJ)
        return bad_message(err, i, "invalid_type", "it must be an object.");
    const char *role = json_as_str(json_get(m, "role"), "");
    bool known = false;
    for (size_t k = 0; k < sizeof roles / sizeof *roles; k++)
        known |= strcmp(role, roles[k]) == 0;
    if (!known)
        return bad_message(err, i, "invalid_value",
                           "'role' must be one of system, developer, user, assistant, tool and "
                           "function.");
    const json *content = json_get(m, "content"), *calls = json_get(m, "tool_calls");
    enum json_kind kind = json_kind_of(content);
    bool empty = kind == JSON_NULL_ || kind == JSON_ABSENT;
    if (empty && strcmp(role, "assistant") != 0)
        return bad_message(err, i, "missing_required_parameter", "'content' is missing.");
    if (json_kind_of(calls) != JSON_ABSENT && json_kind_of(calls) != JSON_NULL_ &&
        json_kind_of(calls) != JSON_ARR)
        return bad_message(err, i, "invalid_type", "'tool_calls' must be an array.");
    for (size_t k = 0; k < json_count(calls); k++) {
        const json *f = json_get(json_at(calls, k), "function");
        if (json_kind_of(json_get(f, "name")) != JSON_STR)
            return bad_message(err, i, "invalid_type", "a tool call has no function name.");
    }
    return check_content(content, i, err);
}

static void parse_tools(struct fields *p, struct api_request *r)
{
    r->tools = field_kind(p, "tools", JSON_ARR, "an array");
    for (size_t i = 0; i < json_count(r->tools) && p->err->status == 0; i++) {
        const json *tool = json_at(r->tools, i), *f = json_get(tool, "function");
        if (strcmp(json_as_str(json_get(tool, "type"), ""), "function") != 0 ||
            json_kind_of(json_get(f, "name")) != JSON_STR)
            api_fail(p->err, 400, "invalid_value", "tools",
                     "Tool %zu must be {\"type\": \"function\", \"function\": {\"name\": ...}}.",
                     i);
    }
    const json *choice = field_get(p, "tool_choice");
    if (!choice)
        return;
    const char *word = json_as_str(choice, "");
    if (strcmp(word, "none") == 0)
        r->tools = NULL;
    else if (strcmp(word, "auto") != 0)
        api_fail(p->err, 400, "unsupported_value", "tool_choice",
                 "Only the tool choices \"auto\" and \"none\" are supported by this server.");
}

bool api_parse_chat(struct api_request *r, const json *body, struct api_error *err)
{
    struct fields p = {.body = body, .err = err};
    r->messages = field_kind(&p, "messages", JSON_ARR, "an array");
    if (err->status)
        return false;
    if (!r->messages)
        return api_fail(err, 400, "missing_required_parameter", "messages",
                        "You must provide a 'messages' parameter.");
    size_t n = json_count(r->messages);
    if (n == 0 || n > API_MESSAGES_MAX)
        return api_fail(err, 400, "invalid_value", "messages",
                        "'messages' must have 1 to %d messages, got %zu.", API_MESSAGES_MAX, n);
    for (size_t i = 0; i < n; i++) {
        if (!check_message(json_at(r->messages, i), i, err))
            return false;
    }
    parse_tools(&p, r);
    r->template_kwargs = field_kind(&p, "chat_template_kwargs", JSON_OBJ, "an object");
    r->documents = field_kind(&p, "documents", JSON_ARR, "an array");
    r->add_special = field_bool(&p, "add_special_tokens", false);
    r->continue_final = field_bool(&p, "continue_final_message", false);
    r->add_generation_prompt = field_bool(&p, "add_generation_prompt", !r->continue_final);
    if (err->status == 0 && r->continue_final && r->add_generation_prompt)
        api_fail(err, 400, "invalid_value", "continue_final_message",
                 "'continue_final_message' and 'add_generation_prompt' exclude each other.");
    return err->status == 0;
}

/* ---- the template's variables ---- */

static void put_content(struct jw *w, const json *content)
{
    if (json_kind_of(content) != JSON_ARR) {
        jw_strn(w, json_as_str(content, ""), json_str_len(content));
        return;
    }
    struct buf text = {0};
    for (size_t k = 0; k < json_count(content); k++) {
        const json *part = json_at(content, k), *s = part;
        if (json_kind_of(part) == JSON_OBJ)
            s = json_get(part, json_as_str(json_get(part, "type"), ""));
        if (k)
            buf_putc(&text, '\n');
        buf_append(&text, json_as_str(s, ""), json_str_len(s));
    }
    jw_strn(w, text.data ? text.data : "", text.len);
    buf_fini(&text);
}

/* {"id", "type", "function": {"name", "arguments": OBJECT}} */
static void put_tool_call(struct jw *w, const json *call)
{
    const json *f = json_get(call, "function"), *arguments = json_get(f, "arguments");
    json *parsed = NULL;
    if (json_kind_of(arguments) == JSON_STR &&
        json_read(json_as_str(arguments, ""), json_str_len(arguments), &parsed, NULL) == ST_OK &&
        json_kind_of(parsed) == JSON_OBJ)
        arguments = parsed;
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
    if (arguments)
        jw_json(w, arguments);
    else
        jw_raw(w, "{}");
    jw_end_obj(w);
    jw_end_obj(w);
    json_free(parsed);
}

static void put_message(struct jw *w, const json *m)
{
    static const char *const kept[] = {"name", "tool_call_id", "reasoning_content", "reasoning"};
    const char *role = json_as_str(json_get(m, "role"), "");
    const json *calls = json_get(m, "tool_calls");
    jw_obj(w);
    jw_key(w, "role");
    jw_str(w, strcmp(role, "developer") == 0 ? "system" : role);
    jw_key(w, "content");
    put_content(w, json_get(m, "content"));
    for (size_t i = 0; i < sizeof kept / sizeof *kept; i++) {
        const json *v = json_get(m, kept[i]);
        if (json_kind_of(v) == JSON_STR) {
            jw_key(w, kept[i]);
            jw_json(w, v);
        }
    }
    if (json_count(calls)) {
        jw_key(w, "tool_calls");
        jw_arr(w);
        for (size_t i = 0; i < json_count(calls); i++)
            put_tool_call(w, json_at(calls, i));
        jw_end_arr(w);
    }
    jw_end_obj(w);
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

static void put_variables(struct buf *out, const struct api_request *r)
{
    struct jw w = jw_begin(out);
    jw_obj(&w);
    jw_key(&w, "messages");
    jw_arr(&w);
    for (size_t i = 0; i < json_count(r->messages); i++)
        put_message(&w, json_at(r->messages, i));
    jw_end_arr(&w);
    jw_key(&w, "add_generation_prompt");
    jw_bool(&w, r->add_generation_prompt);
    if (json_count(r->tools)) {
        jw_key(&w, "tools");
        jw_json(&w, r->tools);
    }
    if (json_count(r->documents)) {
        jw_key(&w, "documents");
        jw_json(&w, r->documents);
    }
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
    struct jw w = jw_begin(&content);
    json *plain = NULL;
    put_content(&w, json_get(json_at(r->messages, json_count(r->messages) - 1), "content"));
    const char *last = "";
    size_t len = 0;
    struct buf array = {0};
    buf_putc(&array, '[');
    buf_append(&array, content.data, content.len);
    buf_putc(&array, ']');
    if (!array.failed && json_read(array.data, array.len, &plain, NULL) == ST_OK) {
        last = json_as_str(json_at(plain, 0), "");
        len = json_str_len(json_at(plain, 0));
    }
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
    json_free(plain);
    buf_fini(&array);
    buf_fini(&content);
}

static const char *token_text(const struct tokenizer *t, int32_t id)
{
    const char *s = id >= 0 ? tokenizer_token(t, id) : NULL;
    return s ? s : "";
}

bool api_chat_ids(const struct api_chat *c, const struct api_request *r, struct ids *out,
                  struct api_error *err)
{
    if (!c->template_)
        return api_fail(err, 400, "unsupported_value", "messages",
                        "The model has no chat template: only completions can be made with it.");
    struct buf text = {0};
    json *variables = NULL;
    struct template_result rendered = {0};
    struct error why = {0};
    put_variables(&text, r);
    enum status st = text.failed ? err_set(&why, ST_NO_MEMORY, "Out of memory.")
                                 : json_read(text.data, text.len, &variables, &why);
    if (st == ST_OK) {
        const struct template_args args = {
            .variables = variables,
            .bos_token = token_text(c->tokenizer, tokenizer_bos(c->tokenizer)),
            .eos_token = token_text(c->tokenizer, tokenizer_eos(c->tokenizer))};
        st = template_render(c->template_, &args, &rendered, &why);
    }
    if (st == ST_OK && r->continue_final)
        cut_after_final(r, &rendered);
    if (st == ST_OK) {
        unsigned flags = TOKENIZE_PARSE_SPECIAL | (r->add_special ? TOKENIZE_ADD_SPECIAL : 0);
        struct spanned_text chat = {rendered.text.data ? rendered.text.data : "", rendered.spans,
                                    rendered.n_spans};
        st = tokenizer_encode_spans(c->tokenizer, &chat, flags, out, &why);
    }
    template_result_fini(&rendered);
    json_free(variables);
    buf_fini(&text);
    if (st == ST_OK)
        return true;
    return api_fail(err, st == ST_INVALID ? 400 : 500,
                    st == ST_INVALID ? "invalid_value" : "internal_error", "messages", "%s",
                    why.text);
}
