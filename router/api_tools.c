/* Tools of a request and which of them may, or must, be called. */
#include <string.h>

#include "router/api_fields.h"
#include "router/output/output_parser.h"

#define TOOLS_MAX 512

static bool check_tool(struct fields *p, const json *tool, size_t i)
{
    const json *f = json_get(tool, "function"), *name = json_get(f, "name");
    size_t len = json_str_len(name);
    if (strcmp(json_as_str(json_get(tool, "type"), ""), "function") != 0 ||
        json_kind_of(name) != JSON_STR)
        return api_fail(p->err, 400, "invalid_value", "tools",
                        "Tool %zu must be {\"type\": \"function\", \"function\": {\"name\": ...}}.",
                        i);
    if (len == 0 || len > OUTPUT_NAME_BYTES_MAX || strlen(json_as_str(name, "")) != len)
        return api_fail(p->err, 400, "invalid_value", "tools",
                        "The name of tool %zu must have 1 to %d bytes.", i, OUTPUT_NAME_BYTES_MAX);
    enum json_kind parameters = json_kind_of(json_get(f, "parameters"));
    if (parameters != JSON_OBJ && parameters != JSON_ABSENT && parameters != JSON_NULL_)
        return api_fail(p->err, 400, "invalid_type", "tools",
                        "'parameters' of tool %zu must be an object.", i);
    return true;
}

const json *api_tool_find(const json *tools, const char *name)
{
    for (size_t i = 0; i < json_count(tools); i++) {
        const json *f = json_get(json_at(tools, i), "function");
        if (strcmp(json_as_str(json_get(f, "name"), ""), name) == 0)
            return f;
    }
    return NULL;
}

static bool check_named(struct fields *p, const struct api_request *r, const json *choice,
                        const char **name)
{
    const json *v = json_get(json_get(choice, "function"), "name");
    *name = json_as_str(v, "");
    if (strcmp(json_as_str(json_get(choice, "type"), ""), "function") != 0 ||
        json_kind_of(v) != JSON_STR)
        return api_fail(p->err, 400, "invalid_value", "tool_choice",
                        "A named tool choice must be {\"type\": \"function\", \"function\": "
                        "{\"name\": ...}}.");
    if (!api_tool_find(r->tools, *name))
        return api_fail(p->err, 400, "invalid_value", "tool_choice",
                        "The tool '%.200s' of 'tool_choice' is not among the tools.", *name);
    return true;
}

static void choose_word(struct fields *p, struct api_request *r, const char *word)
{
    if (strcmp(word, "none") == 0)
        r->tool_choice = API_TOOLS_NONE;
    else if (strcmp(word, "required") == 0)
        r->tool_choice = API_TOOLS_REQUIRED;
    else if (strcmp(word, "auto") != 0)
        api_fail(p->err, 400, "invalid_value", "tool_choice",
                 "'tool_choice' must be \"none\", \"auto\", \"required\" or an object.");
}

/* {"type": "allowed_tools", "allowed_tools": {"mode": ..., "tools": [...]}} */
static void choose_allowed(struct fields *p, struct api_request *r, const json *choice)
{
    const json *allowed = json_get(choice, "allowed_tools"), *tools = json_get(allowed, "tools");
    const char *name;
    if (json_kind_of(tools) != JSON_ARR || json_count(tools) == 0) {
        api_fail(p->err, 400, "invalid_value", "tool_choice",
                 "'allowed_tools' must be {\"mode\": \"auto\" or \"required\", \"tools\": [...]}.");
        return;
    }
    for (size_t i = 0; i < json_count(tools); i++) {
        if (!check_named(p, r, json_at(tools, i), &name))
            return;
    }
    r->allowed = tools;
    choose_word(p, r, json_as_str(json_get(allowed, "mode"), "auto"));
}

bool api_tool_allowed(const struct api_request *r, const json *tool)
{
    const char *name = json_as_str(json_get(json_get(tool, "function"), "name"), "");
    return !r->allowed || api_tool_find(r->allowed, name);
}

void api_parse_tools(struct fields *p, struct api_request *r)
{
    r->tools = field_kind(p, "tools", JSON_ARR, "an array");
    r->parallel_calls = field_bool(p, "parallel_tool_calls", true);
    size_t n = json_count(r->tools);
    if (n > TOOLS_MAX)
        api_fail(p->err, 400, "invalid_value", "tools",
                 "'tools' has %zu tools, at most %d are allowed.", n, TOOLS_MAX);
    for (size_t i = 0; i < n && p->err->status == 0; i++)
        check_tool(p, json_at(r->tools, i), i);
    if (n == 0)
        r->tools = NULL;
    const json *choice = field_get(p, "tool_choice");
    if (!choice)
        return;
    enum json_kind kind = json_kind_of(choice);
    const char *type = json_as_str(json_get(choice, "type"), "");
    if (kind == JSON_STR) {
        choose_word(p, r, json_as_str(choice, ""));
    } else if (kind != JSON_OBJ) {
        field_wrong_type(p, "tool_choice", "a string or an object", choice);
    } else if (strcmp(type, "allowed_tools") == 0) {
        choose_allowed(p, r, choice);
    } else if (check_named(p, r, choice, &r->tool_name)) {
        r->tool_choice = API_TOOLS_NAMED;
    }
    if (p->err->status)
        return;
    bool must = r->tool_choice == API_TOOLS_REQUIRED || r->tool_choice == API_TOOLS_NAMED;
    if (must && !r->tools)
        api_fail(p->err, 400, "invalid_value", "tool_choice",
                 "'tool_choice' asks for a tool, but there are no 'tools'.");
}
