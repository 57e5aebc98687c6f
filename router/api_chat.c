/* Chats: checking messages, tools, and what is asked for beside them. */
#include <stdio.h>
#include <string.h>

#include "router/api.h"
#include "router/api_fields.h"

#define PARTS_MAX 4096
#define TEMPLATE_BYTES_MAX (256 << 10)

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
        enum json_kind arguments = json_kind_of(json_get(f, "arguments"));
        if (json_kind_of(json_get(f, "name")) != JSON_STR)
            return bad_message(err, i, "invalid_type", "a tool call has no function name.");
        if (arguments != JSON_STR && arguments != JSON_OBJ && arguments != JSON_NULL_ &&
            arguments != JSON_ABSENT)
            return bad_message(err, i, "invalid_type",
                               "the arguments of a tool call must be a string or an object.");
    }
    return check_content(content, i, err);
}

static void parse_reasoning(struct fields *p, struct api_request *r)
{
    static const char *const efforts[] = {"none", "minimal", "low", "medium",
                                          "high", "xhigh",   "max"};
    r->include_reasoning = field_bool(p, "include_reasoning", true);
    r->separate_reasoning = field_bool(p, "separate_reasoning", true);
    r->reasoning_effort = field_str(p, "reasoning_effort", NULL, 64);
    bool known = !r->reasoning_effort;
    for (size_t i = 0; i < sizeof efforts / sizeof *efforts && !known; i++)
        known = strcmp(r->reasoning_effort, efforts[i]) == 0;
    if (!known)
        api_fail(p->err, 400, "invalid_value", "reasoning_effort",
                 "'reasoning_effort' must be one of none, minimal, low, medium, high, xhigh and "
                 "max.");
    field_bool(p, "enable_thinking", true);
    r->enable_thinking = field_get(p, "enable_thinking");
}

/* A template of the request's own runs here as the model's does, bounded in steps and output; it is
 * taken where the configuration says so. */
static void parse_template(struct fields *p, struct api_request *r)
{
    r->chat_template = field_str(p, "chat_template", NULL, TEMPLATE_BYTES_MAX);
    if (r->chat_template && !(p->rules && p->rules->chat_templates))
        api_fail(p->err, 400, "unsupported_parameter", "chat_template",
                 "'chat_template' is not accepted by this server.");
}

bool api_parse_chat(struct api_request *r, const json *body, const struct api_rules *rules,
                    struct api_error *err)
{
    struct fields p = {.body = body, .rules = rules, .err = err};
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
    api_parse_tools(&p, r);
    parse_reasoning(&p, r);
    parse_template(&p, r);
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
