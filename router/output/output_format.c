/* The tables. Markers are what published templates and model cards show; where models are known to
 * leave an outer marker out, the inner one opens a section too (output_parser.c). */
#include "router/output/output_format.h"

#include <stdint.h>
#include <string.h>

static const struct output_format formats[] = {
    /* Llama 3.x: one object, or several after <|python_tag|> */
    {.name = "llama3_json", .family = OUTPUT_JSON, .bare = true, .open = {"<|python_tag|>"}},
    {.name = "hermes", .family = OUTPUT_JSON, .open = {"<tool_call>"}, .close = {"</tool_call>"}},
    {.name = "granite",
     .family = OUTPUT_JSON,
     .open = {"<|tool_call|>", "<tool_call>"},
     .close = {"</tool_call>", "<|end_of_text|>"}},
    {.name = "phi4_mini",
     .family = OUTPUT_JSON,
     .open = {"<|tool_call|>", "functools"},
     .close = {"<|/tool_call|>"}},
    /* both [TOOL_CALLS][{...}] and [TOOL_CALLS]name[CALL_ID]id[ARGS]{...} */
    {.name = "mistral",
     .family = OUTPUT_JSON,
     .short_ids = true,
     .open = {"[TOOL_CALLS]"},
     .name_before = {"[CALL_ID]", "[ARGS]"},
     .id_after = "[CALL_ID]"},
    {.name = "jamba", .family = OUTPUT_JSON, .open = {"<tool_calls>"}, .close = {"</tool_calls>"}},
    {.name = "nemotron", .family = OUTPUT_JSON, .open = {"<TOOLCALL>"}, .close = {"</TOOLCALL>"}},
    {.name = "cohere",
     .family = OUTPUT_JSON,
     .open = {"<|START_ACTION|>"},
     .close = {"<|END_ACTION|>"}},
    /* V3 writes the kind before and the name behind the separator, V3.1 the name before it */
    {.name = "deepseek_v3",
     .family = OUTPUT_NAMED,
     .open = {"<｜tool▁calls▁begin｜>"},
     .close = {"<｜tool▁calls▁end｜>"},
     .call_open = "<｜tool▁call▁begin｜>",
     .call_close = "<｜tool▁call▁end｜>",
     .name_after = "function<｜tool▁sep｜>",
     .name_before = {"\n", "<｜tool▁sep｜>", "```"}},
    {.name = "kimi_k2",
     .family = OUTPUT_NAMED,
     .id_in_name = true,
     .open = {"<|tool_calls_section_begin|>"},
     .close = {"<|tool_calls_section_end|>"},
     .call_open = "<|tool_call_begin|>",
     .call_close = "<|tool_call_end|>",
     .name_after = "functions.",
     .name_before = {":", "<|tool_call_argument_begin|>"}},
    {.name = "llama3_function",
     .family = OUTPUT_NAMED,
     .call_open = "<function=",
     .call_close = "</function>",
     .name_before = {">"}},
    {.name = "qwen3_coder",
     .family = OUTPUT_XML,
     .newlines = true,
     .open = {"<tool_call>"},
     .close = {"</tool_call>"},
     .call_open = "<function=",
     .call_close = "</function>",
     .name_end = ">",
     .param_open = "<parameter=",
     .key_end = ">",
     .value_close = "</parameter>"},
    {.name = "seed_oss",
     .family = OUTPUT_XML,
     .newlines = true,
     .open = {"<seed:tool_call>"},
     .close = {"</seed:tool_call>"},
     .call_open = "<function=",
     .call_close = "</function>",
     .name_end = ">",
     .param_open = "<parameter=",
     .key_end = ">",
     .value_close = "</parameter>"},
    {.name = "glm45",
     .family = OUTPUT_XML,
     .open = {"<tool_call>"},
     .call_close = "</tool_call>",
     .param_open = "<arg_key>",
     .key_end = "</arg_key>",
     .value_open = "<arg_value>",
     .value_close = "</arg_value>"},
    {.name = "minimax_m2",
     .family = OUTPUT_XML,
     .newlines = true,
     .open = {"<minimax:tool_call>"},
     .close = {"</minimax:tool_call>"},
     .call_open = "<invoke name=\"",
     .call_close = "</invoke>",
     .name_end = "\">",
     .param_open = "<parameter name=\"",
     .key_end = "\">",
     .value_close = "</parameter>"},
    {.name = "deepseek_v32",
     .family = OUTPUT_XML,
     .open = {"<｜DSML｜function_calls>", "<｜DSML｜tool_calls>"},
     .close = {"</｜DSML｜function_calls>", "</｜DSML｜tool_calls>"},
     .call_open = "<｜DSML｜invoke name=\"",
     .call_close = "</｜DSML｜invoke>",
     .name_end = "\">",
     .param_open = "<｜DSML｜parameter name=\"",
     .key_end = "\"",
     .value_close = "</｜DSML｜parameter>",
     .attributes = true},
    {.name = "pythonic", .family = OUTPUT_PYTHONIC, .bare = true},
    {.name = "llama4_pythonic",
     .family = OUTPUT_PYTHONIC,
     .bare = true,
     .open = {"<|python_start|>"},
     .close = {"<|python_end|>"}},
    {.name = "lfm2",
     .family = OUTPUT_PYTHONIC,
     .open = {"<|tool_call_start|>"},
     .close = {"<|tool_call_end|>"}},
    {.name = "olmo3",
     .family = OUTPUT_PYTHONIC,
     .open = {"<function_calls>"},
     .close = {"</function_calls>"}},
    {.name = "harmony", .family = OUTPUT_HARMONY},
};

static const struct output_reasoning reasonings[] = {
    {.name = "think", .open = {"<think>"}, .close = {"</think>"}},
    {.name = "deepseek_r1", .open = {"<think>"}, .close = {"</think>"}, .begins_inside = true},
    {.name = "mistral", .open = {"[THINK]"}, .close = {"[/THINK]"}},
    /* sentences in 3.2, tags in 3.3 */
    {.name = "granite",
     .open = {"Here is my thought process:", "Here's my thought process:", "<think>"},
     .close = {"Here is my response:", "Here's my response:", "</think>"},
     .dropped = {"<response>", "</response>"}},
    {.name = "seed_oss", .open = {"<seed:think>"}, .close = {"</seed:think>"}},
    {.name = "cohere",
     .open = {"<|START_THINKING|>"},
     .close = {"<|END_THINKING|><|START_RESPONSE|>", "<|END_THINKING|>"}},
    {.name = "harmony", .harmony = true},
};

struct alias {
    const char *name, *row;
};
/* Other names, known from other servers. */
static const struct alias format_aliases[] = {
    {"deepseek_v31", "deepseek_v3"},
    {"openai", "harmony"},
};
static const struct alias reasoning_aliases[] = {
    {"qwen3", "think"},
    {"openai_gptoss", "harmony"},
};

#define COUNT(a) (sizeof(a) / sizeof *(a))

static const char *row_of(const struct alias *a, size_t n, const char *name)
{
    for (size_t i = 0; i < n; i++) {
        if (strcmp(a[i].name, name) == 0)
            return a[i].row;
    }
    return name;
}

const struct output_format *output_format_find(const char *name)
{
    name = row_of(format_aliases, COUNT(format_aliases), name);
    for (size_t i = 0; i < COUNT(formats); i++) {
        if (strcmp(formats[i].name, name) == 0)
            return &formats[i];
    }
    return NULL;
}

const struct output_reasoning *output_reasoning_find(const char *name)
{
    name = row_of(reasoning_aliases, COUNT(reasoning_aliases), name);
    for (size_t i = 0; i < COUNT(reasonings); i++) {
        if (strcmp(reasonings[i].name, name) == 0)
            return &reasonings[i];
    }
    return NULL;
}

/* The first row whose texts are all in the template; the telling ones stand first. */
struct rule {
    const char *has, *too, *row;
};
static const struct rule format_rules[] = {
    {"<|channel|>", "<|message|>", "harmony"},
    {"[TOOL_CALLS]", NULL, "mistral"},
    {"｜DSML｜", NULL, "deepseek_v32"},
    {"<｜tool▁calls▁begin｜>", NULL, "deepseek_v3"},
    {"<|tool_calls_section_begin|>", NULL, "kimi_k2"},
    {"<minimax:tool_call>", NULL, "minimax_m2"},
    {"<seed:tool_call>", NULL, "seed_oss"},
    {"<arg_key>", NULL, "glm45"},
    {"<function=", "<parameter=", "qwen3_coder"},
    {"<|START_ACTION|>", NULL, "cohere"},
    {"<TOOLCALL>", NULL, "nemotron"},
    {"<|tool_call_start|>", NULL, "lfm2"},
    {"<|tool_list_start|>", NULL, "lfm2"},
    {"<function_calls>", NULL, "olmo3"},
    {"<tool_calls>", NULL, "jamba"},
    {"<|tool_call|>", "<|tool|>", "phi4_mini"},
    {"<|tool|>", "tools", "phi4_mini"},
    {"<|tool_call|>", NULL, "granite"},
    {"<tool_call>", NULL, "hermes"},
    {"xml_tools", NULL, "hermes"},
    {"<function=", "</function>", "llama3_function"},
    {"<|python_start|>", NULL, "llama4_pythonic"},
    {"<|header_start|>", "tools", "llama4_pythonic"},
    {"<|python_tag|>", NULL, "llama3_json"},
    {"<|start_header_id|>", "\"parameters\":", "llama3_json"},
};
static const struct rule reasoning_rules[] = {
    {"<|channel|>", "<|message|>", "harmony"},
    {"[THINK]", NULL, "mistral"},
    {"<seed:think>", NULL, "seed_oss"},
    {"<|START_THINKING|>", NULL, "cohere"},
    {"Here is my thought process:", NULL, "granite"},
    {"<response></response>", "<think>", "granite"},
    {"<think>", NULL, "think"},
    {"</think>", NULL, "think"},
};

static const char *apply(const struct rule *rules, size_t n, const char *text)
{
    for (size_t i = 0; i < n; i++) {
        if (strstr(text, rules[i].has) && (!rules[i].too || strstr(text, rules[i].too)))
            return rules[i].row;
    }
    return "";
}

const struct output_format *output_format_for(const char *chat_template)
{
    return output_format_find(apply(format_rules, COUNT(format_rules), chat_template));
}

const struct output_reasoning *output_reasoning_for(const char *chat_template)
{
    return output_reasoning_find(apply(reasoning_rules, COUNT(reasoning_rules), chat_template));
}

static bool ends_with(const char *text, size_t len, const char *const *markers)
{
    for (size_t i = 0; i < OUTPUT_MARKERS_MAX && markers[i]; i++) {
        size_t n = strlen(markers[i]);
        if (len >= n && memcmp(text + len - n, markers[i], n) == 0)
            return true;
    }
    return false;
}

enum output_place output_reasoning_place(const struct output_reasoning *r, const char *prompt,
                                         size_t len)
{
    static const char *const header[OUTPUT_MARKERS_MAX] = {"<|start|>assistant"};
    while (len && strchr(" \t\r\n", prompt[len - 1]))
        len--;
    if (r->harmony)
        return ends_with(prompt, len, header) ? OUTPUT_BEFORE_REASONING : OUTPUT_BEHIND_REASONING;
    if (ends_with(prompt, len, r->open))
        return OUTPUT_WITHIN_REASONING;
    if (ends_with(prompt, len, r->close))
        return OUTPUT_BEHIND_REASONING;
    return r->begins_inside ? OUTPUT_WITHIN_REASONING : OUTPUT_BEFORE_REASONING;
}

static const char *after_last(const char *const *markers, const char *text, size_t len)
{
    const char *last = NULL;
    for (size_t i = 0; i < OUTPUT_MARKERS_MAX && markers[i]; i++) {
        const char *at = text, *hit;
        size_t n = strlen(markers[i]);
        while ((hit = memmem(at, len - (size_t)(at - text), markers[i], n)) != NULL)
            at = hit + n;
        if (at != text && (!last || at > last))
            last = at;
    }
    return last;
}

bool output_reasoning_is_unfinished(const struct output_reasoning *r, const char *text, size_t len)
{
    const char *open = after_last(r->open, text, len), *close = after_last(r->close, text, len);
    return open && (!close || close < open);
}
