/* Tool calls and reasoning over HTTP: what a node says, token by token, as an answer and as a
 * stream; and what of it is a special token. */
#include "http_rig.h"

#define ASK "{\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}]"
#define TOOLS                                                                                      \
    ",\"tools\":[{\"type\":\"function\",\"function\":{\"name\":\"f\",\"parameters\":{\"type\":"    \
    "\"object\",\"properties\":{\"n\":{\"type\":\"integer\"},\"s\":{\"type\":\"string\"}}}}},"     \
    "{\"type\":\"function\",\"function\":{\"name\":\"g\"}}]"

static void set_up_chat(const char *tools, const char *reasoning)
{
    rig_context = 1000;
    set_up(10);
    r.formats.tools = tools ? output_format_find(tools) : NULL;
    r.formats.reasoning = reasoning ? output_reasoning_find(reasoning) : NULL;
}

/* A byte is a token; ids above bytes stand in {}. */
static void say_text(struct node_call *c, int32_t choice, const char *s)
{
    for (int32_t at = 0; *s; at++) {
        int32_t id = (unsigned char)*s;
        if (*s == '{' && strncmp(s, "{25", 3) == 0) {
            id = (int32_t)strtol(s + 1, NULL, 10);
            s = strchr(s, '}');
        }
        s++;
        UNTIL(c->credits > 0);
        say(c, choice, at, id);
    }
}

/* The body of a whole answer. */
static json *answer_of(const char *body, const char *said, enum msg_finish_reason reason)
{
    json *v = NULL;
    struct error err = {0};
    size_t call = n_calls;
    int fd = send_request("/v1/chat/completions", "", body);
    accept_call(call);
    say_text(start_call(call), 0, said);
    end_choice(start_call(call), 0, reason);
    expect(fd, "\"usage\"");
    turns(3);
    const char *json_text = strstr(text, "\r\n\r\n");
    cr_assert_not_null(json_text);
    cr_assert_eq(json_read(json_text + 4, strlen(json_text + 4), &v, &err), ST_OK, "%s: %s",
                 err.text, text);
    close(fd);
    return v;
}

static const json *choice_of(const json *answer)
{
    return json_at(json_get(answer, "choices"), 0);
}

static const json *message_of(const json *answer)
{
    return json_get(choice_of(answer), "message");
}

static void check_str(const json *v, const char *key, const char *want)
{
    const json *s = json_get(v, key);
    if (want)
        cr_assert_str_eq(json_as_str(s, "(none)"), want, "%s", key);
    else
        cr_assert(json_kind_of(s) == JSON_NULL_ || json_kind_of(s) == JSON_ABSENT, "%s is %s", key,
                  json_as_str(s, "?"));
}

static void check_call(const json *answer, size_t i, const char *name, const char *arguments)
{
    const json *c = json_at(json_get(message_of(answer), "tool_calls"), i);
    check_str(c, "type", "function");
    cr_assert_gt(json_str_len(json_get(c, "id")), 5);
    cr_assert_eq(json_kind_of(json_get(c, "index")), JSON_ABSENT);
    check_str(json_get(c, "function"), "name", name);
    check_str(json_get(c, "function"), "arguments", arguments);
}

static int64_t reasoning_tokens(const json *answer)
{
    return json_as_int(json_get(json_get(json_get(answer, "usage"), "completion_tokens_details"),
                                "reasoning_tokens"),
                       -1);
}

static const char two_calls[] =
    "<think>\nhm\n</think>\n\n<tool_call>\n{\"name\": \"f\", \"arguments\": {\"s\": \"a\"}}\n"
    "</tool_call>\n<tool_call>\n{\"name\": \"g\", \"arguments\": {}}\n</tool_call>";

Test(api_tools, whole_answer)
{
    set_up_chat("hermes", "think");
    json *v = answer_of(ASK TOOLS "}", two_calls, MSG_FINISH_STOP);
    check_str(choice_of(v), "finish_reason", "tool_calls");
    check_str(message_of(v), "content", NULL);
    check_str(message_of(v), "reasoning_content", "hm");
    check_str(message_of(v), "reasoning", "hm");
    cr_assert_eq(json_count(json_get(message_of(v), "tool_calls")), (size_t)2);
    check_call(v, 0, "f", "{\"s\": \"a\"}");
    check_call(v, 1, "g", "{}");
    cr_assert_eq(reasoning_tokens(v), 12, "%lld", (long long)reasoning_tokens(v));
    json_free(v);
    tear_down();
}

/* Without tools, or with tool_choice none, a call is text; reasoning is told apart all the same. */
Test(api_tools, calls_that_nobody_asked_for)
{
    static const char *const bodies[] = {ASK "}", ASK TOOLS ",\"tool_choice\":\"none\"}"};
    for (size_t i = 0; i < 2; i++) {
        set_up_chat("hermes", "think");
        json *v = answer_of(bodies[i], "<think>x</think><tool_call>{\"name\":\"f\"}</tool_call>",
                            MSG_FINISH_STOP);
        check_str(choice_of(v), "finish_reason", "stop");
        check_str(message_of(v), "content", "<tool_call>{\"name\":\"f\"}</tool_call>");
        check_str(message_of(v), "reasoning_content", "x");
        cr_assert_eq(json_kind_of(json_get(message_of(v), "tool_calls")), JSON_ABSENT);
        json_free(v);
        tear_down();
    }
}

Test(api_tools, reasoning_kept_back_or_left_in)
{
    set_up_chat("hermes", "think");
    json *v = answer_of(ASK ",\"include_reasoning\":false}", "<think>x</think>y", MSG_FINISH_STOP);
    check_str(message_of(v), "content", "y");
    cr_assert_eq(json_kind_of(json_get(message_of(v), "reasoning")), JSON_ABSENT);
    cr_assert_gt(reasoning_tokens(v), 0);
    json_free(v);
    v = answer_of(ASK ",\"separate_reasoning\":false}", "<think>x</think>y", MSG_FINISH_STOP);
    check_str(message_of(v), "content", "<think>x</think>y");
    cr_assert_eq(reasoning_tokens(v), 0);
    json_free(v);
    tear_down();
}

Test(api_tools, one_call_only_and_one_that_is_cut)
{
    set_up_chat("hermes", "think");
    json *v = answer_of(ASK TOOLS ",\"parallel_tool_calls\":false}", two_calls, MSG_FINISH_STOP);
    cr_assert_eq(json_count(json_get(message_of(v), "tool_calls")), (size_t)1);
    check_call(v, 0, "f", "{\"s\": \"a\"}");
    json_free(v);
    v = answer_of(ASK TOOLS "}", "<tool_call>{\"name\":\"f\",\"arguments\":{\"s\":\"ab",
                  MSG_FINISH_LENGTH);
    check_str(choice_of(v), "finish_reason", "length");
    check_call(v, 0, "f", "{\"s\":\"ab");
    json_free(v);
    v = answer_of(ASK TOOLS "}", "a <tool_call>{\"name\":\"f\",\"arguments\":{\"s\":}}</tool_call>",
                  MSG_FINISH_STOP);
    check_str(choice_of(v), "finish_reason", "stop");
    check_str(message_of(v), "content",
              "a <tool_call>{\"name\":\"f\",\"arguments\":{\"s\":}}</tool_call>");
    json_free(v);
    tear_down();
}

/* The schema decides what is a string and what is not; only tools of the request are believed
 * without a marker; ids are as short as Mistral's template wants them. */
Test(api_tools, schemas_names_and_ids)
{
    set_up_chat("qwen3_coder", NULL);
    json *v =
        answer_of(ASK TOOLS "}",
                  "<tool_call>\n<function=f>\n<parameter=n>\n12\n</parameter>\n<parameter=s>\n"
                  "12\n</parameter>\n</function>\n</tool_call>",
                  MSG_FINISH_STOP);
    check_call(v, 0, "f", "{\"n\": 12, \"s\": \"12\"}");
    json_free(v);
    r.formats.tools = output_format_find("llama3_json");
    v = answer_of(ASK TOOLS "}", "{\"name\": \"h\", \"parameters\": {}}", MSG_FINISH_STOP);
    check_str(message_of(v), "content", "{\"name\": \"h\", \"parameters\": {}}");
    json_free(v);
    v = answer_of(
        ASK TOOLS
        ",\"tool_choice\":{\"type\":\"allowed_tools\",\"allowed_tools\":{\"mode\":\"auto\","
        "\"tools\":[{\"type\":\"function\",\"function\":{\"name\":\"g\"}}]}}}",
        "{\"name\": \"f\", \"parameters\": {}}", MSG_FINISH_STOP);
    check_str(message_of(v), "content", "{\"name\": \"f\", \"parameters\": {}}");
    json_free(v);
    r.formats.tools = output_format_find("mistral");
    v = answer_of(ASK TOOLS "}", "[TOOL_CALLS]f[ARGS]{}", MSG_FINISH_STOP);
    cr_assert_eq(json_str_len(json_get(json_at(json_get(message_of(v), "tool_calls"), 0), "id")),
                 9);
    json_free(v);
    tear_down();
}

/* A call that must come is plain JSON, whatever the model's own format is. */
Test(api_tools, forced)
{
    set_up_chat("mistral", "think");
    json *v = answer_of(ASK TOOLS ",\"tool_choice\":{\"type\":\"function\",\"function\":{\"name\":"
                                  "\"f\"}}}",
                        "{\"n\": 5}", MSG_FINISH_STOP);
    check_str(choice_of(v), "finish_reason", "stop");
    check_call(v, 0, "f", "{\"n\": 5}");
    check_str(message_of(v), "content", NULL);
    json_free(v);
    v = answer_of(
        ASK TOOLS ",\"tool_choice\":\"required\"}",
        "[{\"name\": \"g\", \"parameters\": {}}, {\"name\": \"f\", \"parameters\": {\"s\": "
        "\"<think>\"}}]",
        MSG_FINISH_STOP);
    check_str(choice_of(v), "finish_reason", "tool_calls");
    check_call(v, 0, "g", "{}");
    check_call(v, 1, "f", "{\"s\": \"<think>\"}");
    json_free(v);
    tear_down();
}

/* Special tokens reach the parser, whole, and nobody else. */
Test(api_tools, special_tokens)
{
    static const struct output_format special = {
        .name = "special", .family = OUTPUT_JSON, .open = {"<|user|>"}, .close = {"<|assistant|>"}};
    set_up_chat(NULL, NULL);
    r.formats.tools = &special;
    static const char said[] = "a{256}b\xc3{258}{\"name\":\"f\",\"arguments\":{}}{259}";
    json *v = answer_of(ASK TOOLS "}", said, MSG_FINISH_STOP);
    check_str(message_of(v), "content", "ab\xef\xbf\xbd");
    check_call(v, 0, "f", "{}");
    json_free(v);
    v = answer_of(ASK TOOLS ",\"skip_special_tokens\":false}", said, MSG_FINISH_STOP);
    check_str(message_of(v), "content", "a<|bos|>b\xef\xbf\xbd");
    check_call(v, 0, "f", "{}");
    json_free(v);
    /* a stop string does not go across one */
    v = answer_of(ASK TOOLS ",\"stop\":[\"ab\"]}", "a{256}bab", MSG_FINISH_STOP);
    check_str(message_of(v), "content", "ab");
    check_str(choice_of(v), "stop_reason", "ab");
    json_free(v);
    v = answer_of(ASK "}", "a{258}b", MSG_FINISH_STOP);
    check_str(message_of(v), "content", "ab");
    json_free(v);
    tear_down();
}

/* `at` moves behind the text where it is found. */
static void in_order(const char **at, const char *want)
{
    const char *hit = strstr(*at, want);
    cr_assert(hit != NULL, "%s is not where it should be: %s", want, text);
    *at = hit + strlen(want);
}

Test(api_tools, stream)
{
    set_up_chat("hermes", "think");
    int fd =
        send_request("/v1/chat/completions", "",
                     ASK TOOLS ",\"stream\":true,\"stream_options\":{\"include_usage\":true}}");
    accept_call(0);
    say_text(start_call(0), 0, two_calls);
    end_choice(start_call(0), 0, MSG_FINISH_STOP);
    expect(fd, "[DONE]");
    const char *at = text;
    in_order(&at, "\"delta\":{\"role\":\"assistant\",\"content\":\"\"}");
    in_order(&at, "\"delta\":{\"reasoning_content\":\"h\",\"reasoning\":\"h\"}");
    in_order(&at, "\"delta\":{\"reasoning_content\":\"m\",\"reasoning\":\"m\"}");
    in_order(&at, "\"delta\":{\"tool_calls\":[{\"index\":0,\"id\":\"call_");
    in_order(&at, "\"type\":\"function\",\"function\":{\"name\":\"f\",\"arguments\":\"{\"}}]}");
    in_order(&at,
             "\"delta\":{\"tool_calls\":[{\"index\":0,\"function\":{\"arguments\":\"\\\"\"}}]}");
    in_order(&at, "{\"index\":0,\"function\":{\"arguments\":\"}\"}}]}");
    in_order(&at, "\"delta\":{\"tool_calls\":[{\"index\":1,\"id\":\"call_");
    in_order(&at, "\"name\":\"g\",\"arguments\":\"{\"}}]}");
    in_order(&at, "\"delta\":{},\"logprobs\":null,\"finish_reason\":\"tool_calls\"");
    in_order(&at, "\"reasoning_tokens\":12");
    cr_assert(!strstr(text, "tool_call>") && !strstr(text, "think>"), "%s", text);
    close(fd);
    tear_down();
}

/* Every choice has a parser of its own. */
Test(api_tools, choices_side_by_side)
{
    set_up_chat("hermes", NULL);
    int fd = send_request("/v1/chat/completions", "", ASK TOOLS ",\"stream\":true,\"n\":2}");
    static const char a[] = "<tool_call>{\"name\":\"f\",\"arguments\":{}}", b[] = "<tool_calm>";
    accept_call(0);
    struct node_call *c = start_call(0);
    for (int32_t i = 0; i < (int32_t)sizeof a - 1; i++) {
        UNTIL(c->credits > 1);
        say(c, 0, i, a[i]);
        if (i < (int32_t)sizeof b - 1)
            say(c, 1, i, b[i]);
    }
    end_choice(c, 0, MSG_FINISH_STOP);
    end_choice(c, 1, MSG_FINISH_STOP);
    expect(fd, "[DONE]");
    const char *at = text;
    in_order(&at, "\"index\":1,\"delta\":{\"content\":\"<tool_calm\"}");
    at = text;
    in_order(&at, "\"index\":0,\"delta\":{\"tool_calls\":[{\"index\":0,");
    in_order(&at, "\"index\":0,\"delta\":{},\"logprobs\":null,\"finish_reason\":\"tool_calls\"");
    in_order(&at, "\"index\":1,\"delta\":{},\"logprobs\":null,\"finish_reason\":\"stop\"");
    close(fd);
    tear_down();
}

/* A prompt that ends within reasoning: the answer begins there. */
Test(api_tools, template_that_opens_reasoning)
{
    static const char template_text[] =
        "{% for m in messages %}{{ m.content }}{% endfor %}{% if add_generation_prompt %}<think>\n"
        "{% if enable_thinking is defined and not enable_thinking %}</think>\n{% endif %}{% endif "
        "%}";
    set_up_chat(NULL, "think");
    template_free(r.chat_template);
    cr_assert_eq(template_parse(template_text, sizeof template_text - 1, &r.chat_template, NULL),
                 ST_OK);
    json *v = answer_of(ASK "}", "so\n</think>\n\nyes", MSG_FINISH_STOP);
    check_str(message_of(v), "reasoning_content", "so");
    check_str(message_of(v), "content", "yes");
    json_free(v);
    /* what must be JSON stands behind the reasoning, unless there is to be none */
#define JSON ",\"response_format\":{\"type\":\"json_object\"}"
    v = answer_of(ASK JSON "}", "so</think>\n{}", MSG_FINISH_STOP);
    check_str(message_of(v), "content", "{}");
    check_str(message_of(v), "reasoning_content", "so");
    cr_assert_gt(start_call(n_calls - 1)->grammar.lead, 0);
    json_free(v);
    v = answer_of(ASK JSON ",\"enable_thinking\":false}", "{}", MSG_FINISH_STOP);
    check_str(message_of(v), "content", "{}");
    check_str(message_of(v), "reasoning_content", NULL);
    cr_assert_eq(start_call(n_calls - 1)->grammar.lead, 0);
    json_free(v);
    v = answer_of(ASK JSON ",\"separate_reasoning\":false}", "{}", MSG_FINISH_STOP);
    check_str(message_of(v), "content", "{}");
    cr_assert_eq(start_call(n_calls - 1)->grammar.lead, 0);
    json_free(v);
#undef JSON
    v = answer_of(ASK ",\"structured_outputs\":{\"regex\":\"so</think>yes\"}}", "so</think>yes",
                  MSG_FINISH_STOP);
    check_str(message_of(v), "content", "yes");
    check_str(message_of(v), "reasoning_content", "so");
    json_free(v);
    /* a switch that the template does not know: it opens reasoning, the grammar leaves none */
    v = answer_of(ASK ",\"structured_outputs\":{\"regex\":\"yes\"},"
                      "\"chat_template_kwargs\":{\"thinking\":false}}",
                  "yes", MSG_FINISH_STOP);
    check_str(message_of(v), "content", "yes");
    check_str(message_of(v), "reasoning_content", NULL);
    json_free(v);
    static const char *const off[] = {",\"enable_thinking\":false}",
                                      ",\"reasoning_effort\":\"none\"}",
                                      ",\"chat_template_kwargs\":{\"enable_thinking\":false}}"};
    for (size_t i = 0; i < 3; i++) {
        char body[256];
        snprintf(body, sizeof body, "%s%s", ASK, off[i]);
        v = answer_of(body, "yes", MSG_FINISH_STOP);
        check_str(message_of(v), "reasoning_content", NULL);
        check_str(message_of(v), "content", "yes");
        json_free(v);
    }
    tear_down();
}
