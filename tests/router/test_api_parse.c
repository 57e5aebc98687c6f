/* Request bodies: what is taken, and what every kind of mistake is answered with. */
#include "api_rig.h"

static bool parse(struct api_request *r, enum api_kind kind, const char *text,
                  struct api_error *err)
{
    const struct api_rules rules = rig_rules();
    return api_parse(r, kind, &rules, (struct api_text_ref){text, strlen(text)}, err);
}

struct bad {
    const char *body, *code, *param;
};

static void check_bad(enum api_kind kind, const struct bad *cases, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        struct api_request r;
        struct api_error err = {0};
        cr_assert(!parse(&r, kind, cases[i].body, &err), "%s was taken", cases[i].body);
        cr_assert_eq(err.status, 400, "%s: %d", cases[i].body, err.status);
        cr_assert_str_eq(err.code, cases[i].code, "%s: %s", cases[i].body, err.message);
        cr_assert_str_eq(err.param, cases[i].param, "%s: %s", cases[i].body, err.message);
        cr_assert(err.message[0] != 0);
    }
}

#define P "\"prompt\":\"a\""

Test(api_parse, bad_completions)
{
    static const struct bad cases[] = {
        {"", "invalid_json", ""},
        {"{", "invalid_json", ""},
        {"nonsense", "invalid_json", ""},
        {"{\"prompt\":\"a\",}", "invalid_json", ""},
        {"{\"prompt\":\"a\",\"prompt\":\"b\"}", "invalid_json", ""},
        {"{\"prompt\":\"\xff\"}", "invalid_json", ""},
        {"{\"prompt\":\"\xed\xa0\x80\"}", "invalid_json", ""},
        {"{" P ",\"temperature\":NaN}", "invalid_json", ""},
        {"{" P ",\"temperature\":1e999}", "invalid_json", ""},
        {"{" P ",\"temperature\":Infinity}", "invalid_json", ""},
        {"[]", "invalid_type", ""},
        {"\"a\"", "invalid_type", ""},
        {"null", "invalid_type", ""},
        {"{}", "missing_required_parameter", "prompt"},
        {"{\"prompt\":null}", "missing_required_parameter", "prompt"},
        {"{\"prompt\":1}", "invalid_type", "prompt"},
        {"{\"prompt\":{}}", "invalid_type", "prompt"},
        {"{\"prompt\":[]}", "invalid_value", "prompt"},
        {"{\"prompt\":[[]]}", "invalid_value", "prompt"},
        {"{\"prompt\":[\"a\",1]}", "invalid_type", "prompt"},
        {"{\"prompt\":[1,\"a\"]}", "invalid_type", "prompt"},
        {"{\"prompt\":[1,[2]]}", "invalid_type", "prompt"},
        {"{\"prompt\":[[1],2]}", "invalid_type", "prompt"},
        {"{\"prompt\":[[1],[\"a\"]]}", "invalid_type", "prompt"},
        {"{\"prompt\":[1.5]}", "invalid_type", "prompt"},
        {"{\"prompt\":[260]}", "invalid_value", "prompt"},
        {"{\"prompt\":[-1]}", "invalid_value", "prompt"},
        {"{\"prompt\":[true]}", "invalid_type", "prompt"},
        {"{" P ",\"model\":1}", "invalid_type", "model"},
        {"{" P ",\"model\":\"a\\u0000b\"}", "invalid_value", "model"},
        {"{" P ",\"temperature\":\"1\"}", "invalid_type", "temperature"},
        {"{" P ",\"temperature\":-0.1}", "invalid_value", "temperature"},
        {"{" P ",\"temperature\":2.1}", "invalid_value", "temperature"},
        {"{" P ",\"temperature\":true}", "invalid_type", "temperature"},
        {"{" P ",\"top_p\":0}", "invalid_value", "top_p"},
        {"{" P ",\"top_p\":1.01}", "invalid_value", "top_p"},
        {"{" P ",\"top_k\":-2}", "invalid_value", "top_k"},
        {"{" P ",\"top_k\":1.5}", "invalid_type", "top_k"},
        {"{" P ",\"min_p\":-1}", "invalid_value", "min_p"},
        {"{" P ",\"min_p\":2}", "invalid_value", "min_p"},
        {"{" P ",\"repetition_penalty\":0}", "invalid_value", "repetition_penalty"},
        {"{" P ",\"presence_penalty\":2.5}", "invalid_value", "presence_penalty"},
        {"{" P ",\"frequency_penalty\":-2.5}", "invalid_value", "frequency_penalty"},
        {"{" P ",\"n\":0}", "invalid_value", "n"},
        {"{" P ",\"n\":9}", "invalid_value", "n"},
        {"{" P ",\"n\":\"2\"}", "invalid_type", "n"},
        {"{" P ",\"n\":2,\"best_of\":3}", "unsupported_value", "best_of"},
        {"{" P ",\"max_tokens\":0}", "invalid_value", "max_tokens"},
        {"{" P ",\"max_tokens\":-5}", "invalid_value", "max_tokens"},
        {"{" P ",\"max_tokens\":99999999999}", "invalid_value", "max_tokens"},
        {"{" P ",\"max_tokens\":99999999999999999999}", "invalid_type", "max_tokens"},
        {"{" P ",\"max_tokens\":5,\"min_tokens\":6}", "invalid_value", "min_tokens"},
        {"{" P ",\"seed\":1.5}", "invalid_type", "seed"},
        {"{" P ",\"stop\":1}", "invalid_type", "stop"},
        {"{" P ",\"stop\":\"\"}", "invalid_value", "stop"},
        {"{" P ",\"stop\":[\"a\",\"\"]}", "invalid_value", "stop"},
        {"{" P ",\"stop\":[\"a\",2]}", "invalid_type", "stop"},
        {"{" P ",\"stop\":[\"a\",\"b\",\"c\",\"d\",\"e\"]}", "invalid_value", "stop"},
        {"{" P ",\"stop_token_ids\":[260]}", "invalid_value", "stop_token_ids"},
        {"{" P ",\"stop_token_ids\":[\"a\"]}", "invalid_type", "stop_token_ids"},
        {"{" P ",\"logit_bias\":[]}", "invalid_type", "logit_bias"},
        {"{" P ",\"logit_bias\":{\"x\":1}}", "invalid_value", "logit_bias"},
        {"{" P ",\"logit_bias\":{\"-1\":1}}", "invalid_value", "logit_bias"},
        {"{" P ",\"logit_bias\":{\"260\":1}}", "invalid_value", "logit_bias"},
        {"{" P ",\"logit_bias\":{\"1\":101}}", "invalid_value", "logit_bias"},
        {"{" P ",\"logit_bias\":{\"1\":\"a\"}}", "invalid_value", "logit_bias"},
        {"{" P ",\"logprobs\":6}", "invalid_value", "logprobs"},
        {"{" P ",\"logprobs\":true}", "invalid_type", "logprobs"},
        {"{" P ",\"prompt_logprobs\":6}", "invalid_value", "prompt_logprobs"},
        {"{" P ",\"prompt_logprobs\":-1}", "invalid_value", "prompt_logprobs"},
        {"{" P ",\"prompt_logprobs\":1,\"stream\":true}", "invalid_value", "prompt_logprobs"},
        {"{" P ",\"stream\":\"yes\"}", "invalid_type", "stream"},
        {"{" P ",\"stream_options\":{\"include_usage\":true}}", "invalid_value", "stream_options"},
        {"{" P ",\"stream\":true,\"stream_options\":[]}", "invalid_type", "stream_options"},
        {"{" P ",\"stream\":true,\"stream_options\":{\"include_usage\":1}}", "invalid_type",
         "include_usage"},
        {"{" P ",\"echo\":1}", "invalid_type", "echo"},
        {"{" P ",\"suffix\":\"b\"}", "unsupported_parameter", "suffix"},
        {"{" P ",\"response_format\":{\"type\":\"xml\"}}", "unsupported_value", "response_format"},
        {"{" P ",\"response_format\":{\"type\":\"json_schema\"}}", "missing_required_parameter",
         "response_format"},
        {"{" P ",\"response_format\":{\"type\":\"json_schema\",\"json_schema\":[]}}",
         "invalid_type", "response_format"},
        {"{" P ",\"response_format\":{\"type\":\"json_schema\",\"json_schema\":{\"schema\":3}}}",
         "invalid_type", "response_format"},
        {"{" P ",\"guided_regex\":3}", "invalid_type", "guided_regex"},
        {"{" P ",\"guided_choice\":\"a\"}", "invalid_type", "guided_choice"},
        {"{" P ",\"structured_outputs\":{}}", "invalid_value", "structured_outputs"},
        {"{" P ",\"structured_outputs\":{\"structural_tag\":{}}}", "unsupported_value",
         "structured_outputs"},
        {"{" P ",\"grammar\":\"root ::= x\",\"regex\":\"a\"}", "invalid_value", "regex"},
        {"{" P ",\"structured_outputs\":{\"regex\":\"a\",\"choice\":[\"a\"]}}", "invalid_value",
         "structured_outputs"},
        {"{" P ",\"response_format\":\"text\"}", "invalid_type", "response_format"},
        {"{" P ",\"use_beam_search\":true}", "unsupported_parameter", "use_beam_search"},
        {"{" P ",\"user\":1}", "invalid_type", "user"},
        {"{" P ",\"metadata\":[]}", "invalid_type", "metadata"},
        {"{" P ",\"cache_salt\":1}", "invalid_type", "cache_salt"},
        {"{" P ",\"ignore_eos\":0}", "invalid_type", "ignore_eos"},
        /* as a float they would be 0, or blow up what is divided by them */
        {"{" P ",\"top_p\":1e-60}", "invalid_value", "top_p"},
        {"{" P ",\"repetition_penalty\":1e-60}", "invalid_value", "repetition_penalty"},
        {"{" P ",\"repetition_penalty\":1e-39}", "invalid_value", "repetition_penalty"},
        /* one id, two keys */
        {"{" P ",\"logit_bias\":{\"1\":1,\"01\":2}}", "invalid_value", "logit_bias"},
        {"{" P ",\"logit_bias\":{\"-0\":1}}", "invalid_value", "logit_bias"},
    };
    check_bad(API_COMPLETION, cases, sizeof cases / sizeof *cases);
}

#undef P
#define M "\"messages\":[{\"role\":\"user\",\"content\":\"a\"}]"
#define TOOLS                                                                                      \
    ",\"tools\":[{\"type\":\"function\",\"function\":{\"name\":\"f\"}},{\"type\":\"function\","    \
    "\"function\":{\"name\":\"g\"}}]"

Test(api_parse, bad_chats)
{
    static const struct bad cases[] = {
        {"{}", "missing_required_parameter", "messages"},
        {"{\"messages\":\"a\"}", "invalid_type", "messages"},
        {"{\"messages\":[]}", "invalid_value", "messages"},
        {"{\"messages\":[1]}", "invalid_type", "messages[0]"},
        {"{\"messages\":[{}]}", "invalid_value", "messages[0]"},
        {"{\"messages\":[{\"role\":\"king\",\"content\":\"a\"}]}", "invalid_value", "messages[0]"},
        {"{\"messages\":[{\"role\":\"user\"}]}", "missing_required_parameter", "messages[0]"},
        {"{\"messages\":[{\"role\":\"user\",\"content\":null}]}", "missing_required_parameter",
         "messages[0]"},
        {"{\"messages\":[{\"role\":\"user\",\"content\":1}]}", "invalid_type", "messages[0]"},
        {"{\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"image_url\"}]}]}",
         "unsupported_value", "messages[0]"},
        {"{\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"text\"}]}]}", "invalid_type",
         "messages[0]"},
        {"{\"messages\":[{\"role\":\"user\",\"content\":\"a\"},{\"role\":\"assistant\","
         "\"tool_calls\":[{}]}]}",
         "invalid_type", "messages[1]"},
        {"{" M ",\"logprobs\":3}", "invalid_type", "logprobs"},
        {"{" M ",\"top_logprobs\":2}", "invalid_value", "top_logprobs"},
        {"{" M ",\"logprobs\":true,\"top_logprobs\":6}", "invalid_value", "top_logprobs"},
        {"{" M ",\"tools\":{}}", "invalid_type", "tools"},
        {"{" M ",\"tools\":[{}]}", "invalid_value", "tools"},
        {"{" M ",\"tool_choice\":\"required\"}", "invalid_value", "tool_choice"},
        {"{" M ",\"tool_choice\":{\"type\":\"function\"}}", "invalid_value", "tool_choice"},
        {"{" M ",\"tool_choice\":5}", "invalid_type", "tool_choice"},
        {"{" M TOOLS ",\"tool_choice\":\"some\"}", "invalid_value", "tool_choice"},
        {"{" M TOOLS ",\"tool_choice\":{\"type\":\"function\",\"function\":{\"name\":\"h\"}}}",
         "invalid_value", "tool_choice"},
        {"{" M TOOLS ",\"tool_choice\":{\"type\":\"allowed_tools\"}}", "invalid_value",
         "tool_choice"},
        {"{" M ",\"tools\":[{\"type\":\"function\",\"function\":{\"name\":\"\"}}]}",
         "invalid_value", "tools"},
        {"{" M ",\"tools\":[{\"type\":\"function\",\"function\":{\"name\":\"f\",\"parameters\":"
         "[]}}]}",
         "invalid_type", "tools"},
        {"{" M ",\"parallel_tool_calls\":1}", "invalid_type", "parallel_tool_calls"},
        {"{" M ",\"reasoning_effort\":1}", "invalid_type", "reasoning_effort"},
        {"{" M ",\"reasoning_effort\":\"huge\"}", "invalid_value", "reasoning_effort"},
        {"{\"messages\":[{\"role\":\"assistant\",\"tool_calls\":[{\"function\":{\"name\":\"f\","
         "\"arguments\":5}}]}]}",
         "invalid_type", "messages[0]"},
        {"{" M ",\"enable_thinking\":1}", "invalid_type", "enable_thinking"},
        {"{" M ",\"include_reasoning\":\"yes\"}", "invalid_type", "include_reasoning"},
        {"{" M ",\"chat_template\":\"x\"}", "unsupported_parameter", "chat_template"},
        {"{" M ",\"functions\":[{}]}", "unsupported_parameter", "functions"},
        {"{" M ",\"max_completion_tokens\":0}", "invalid_value", "max_completion_tokens"},
        {"{" M ",\"modalities\":[\"audio\"]}", "unsupported_value", "modalities"},
        {"{" M ",\"chat_template\":\"x\"}", "unsupported_parameter", "chat_template"},
        {"{" M ",\"chat_template_kwargs\":[]}", "invalid_type", "chat_template_kwargs"},
        {"{" M ",\"continue_final_message\":true,\"add_generation_prompt\":true}", "invalid_value",
         "continue_final_message"},
    };
    check_bad(API_CHAT, cases, sizeof cases / sizeof *cases);
}

/* What a body costs to read is everybody's time. */
Test(api_parse, bodies_of_too_many_values)
{
    struct api_request r;
    struct api_error err;
    struct buf b = {0};
    buf_puts(&b, "{\"prompt\":[1");
    for (int i = 0; i < 2000000; i++)
        buf_puts(&b, ",1");
    buf_puts(&b, "]}");
    cr_assert_not(parse(&r, API_COMPLETION, b.data, &err));
    cr_assert_str_eq(err.code, "invalid_json");
    buf_clear(&b);
    buf_puts(&b, "{\"prompt\":\"a\",\"x\":{\"\":0");
    for (int i = 0; i < 140000; i++)
        buf_printf(&b, ",\"%x\":0", i);
    buf_puts(&b, "}}");
    cr_assert_not(parse(&r, API_COMPLETION, b.data, &err));
    cr_assert_str_eq(err.code, "invalid_json");
    buf_fini(&b);
}

Test(api_parse, everything_given)
{
    struct api_request r;
    struct api_error err = {0};
    cr_assert(parse(&r, API_COMPLETION,
                    "{\"model\":\"m\",\"prompt\":[\"a\",\"b\\u0000c\"],\"n\":2,\"best_of\":2,"
                    "\"max_tokens\":7,\"min_tokens\":3,\"temperature\":0,\"top_p\":0.9,"
                    "\"top_k\":-1,\"min_p\":0.125,\"repetition_penalty\":1.25,"
                    "\"presence_penalty\":-2,\"frequency_penalty\":2,\"seed\":-1,\"logprobs\":5,"
                    "\"stop\":[\"x\",\"yz\"],\"stop_token_ids\":[1,2,3],"
                    "\"logit_bias\":{\"5\":-100,\"6\":1.5},\"ignore_eos\":true,\"stream\":true,"
                    "\"stream_options\":{\"include_usage\":true},\"user\":\"u\","
                    "\"cache_salt\":\"s\",\"add_special_tokens\":false,"
                    "\"skip_special_tokens\":false,\"include_stop_str_in_output\":true,"
                    "\"unheard_of\":{\"a\":[1]},\"suffix\":null,\"response_format\":"
                    "{\"type\":\"text\"}}",
                    &err),
              "%s", err.message);
    cr_assert_str_eq(r.model, "m");
    cr_assert_eq(r.n_prompts, (size_t)2);
    cr_assert_eq(r.prompts[1].len, (size_t)3);
    cr_assert_eq(memcmp(r.prompts[1].text, "b\0c", 3), 0);
    cr_assert_eq(r.n, 2);
    const struct msg_sampling *s = &r.sampling;
    cr_assert_eq(s->max_tokens, 7);
    cr_assert_eq(s->min_tokens, 3);
    cr_assert_eq(s->temperature, 0);
    cr_assert_eq(s->top_p, 0.9f);
    cr_assert_eq(s->top_k, 0);
    cr_assert_eq(s->min_p, 0.125f);
    cr_assert_eq(s->repetition_penalty, 1.25f);
    cr_assert_eq(s->presence_penalty, -2);
    cr_assert_eq(s->frequency_penalty, 2);
    cr_assert(r.has_seed && s->seed == UINT64_MAX);
    cr_assert_eq(s->logprobs, 5);
    cr_assert_eq(r.n_stops, (size_t)2);
    cr_assert_str_eq(r.stops[1].text, "yz");
    cr_assert(s->stop_ids.n == 3 && s->stop_ids.v[2] == 3);
    cr_assert(s->n_bias == 2 && s->bias[1].id == 6 && s->bias[1].bias == 1.5f);
    cr_assert(s->ignore_eos && r.stream && r.include_usage && r.include_stop);
    cr_assert(!r.add_special && !r.skip_special);
    cr_assert_str_eq(r.cache_salt, "s");
    api_request_fini(&r);
}

Test(api_parse, defaults)
{
    struct api_request r;
    struct api_error err = {0};
    cr_assert(
        parse(&r, API_COMPLETION, "{\"prompt\":\"\",\"temperature\":null,\"stop\":null}", &err));
    cr_assert_eq(r.sampling.temperature, 0.75f);
    cr_assert_eq(r.sampling.top_p, 0.5f);
    cr_assert_eq(r.sampling.min_p, 0.25f);
    cr_assert_eq(r.sampling.top_k, 40);
    cr_assert_eq(r.sampling.repetition_penalty, 1.5f);
    cr_assert_eq(r.sampling.max_tokens, 16);
    cr_assert_eq(r.sampling.logprobs, -1);
    cr_assert(!r.has_seed && !r.stream && !r.echo && r.add_special && r.skip_special && r.n == 1);
    api_request_fini(&r);
    cr_assert(parse(&r, API_CHAT, "{" M ",\"max_tokens\":3,\"max_completion_tokens\":4}", &err));
    cr_assert_eq(r.sampling.max_tokens, 4);
    cr_assert(!r.add_special && r.add_generation_prompt);
    api_request_fini(&r);
    cr_assert(parse(&r, API_CHAT, "{" M ",\"logprobs\":true}", &err));
    cr_assert_eq(r.sampling.max_tokens, -1);
    cr_assert_eq(r.sampling.logprobs, 0);
    api_request_fini(&r);
}

Test(api_parse, scores_of_the_prompt)
{
    struct api_request r;
    struct api_error err = {0};
    cr_assert(parse(&r, API_COMPLETION,
                    "{\"prompt\":\"a\",\"echo\":true,\"logprobs\":2,\"max_tokens\":0}", &err));
    cr_assert_eq(r.sampling.max_tokens, 0);
    cr_assert(r.echo && r.prompt_logprobs == -1 && api_score_top(&r) == 2);
    api_request_fini(&r);
    cr_assert(parse(&r, API_COMPLETION,
                    "{\"prompt\":\"a\",\"logprobs\":2,\"prompt_logprobs\":0,\"max_tokens\":0}",
                    &err));
    cr_assert_eq(api_score_top(&r), 0, "logprobs alone are those of what is generated");
    api_request_fini(&r);
    cr_assert(parse(&r, API_CHAT, "{" M ",\"prompt_logprobs\":3,\"max_tokens\":1}", &err));
    cr_assert_eq(api_score_top(&r), 3);
    api_request_fini(&r);
    cr_assert(parse(&r, API_COMPLETION, "{\"prompt\":\"a\",\"echo\":true}", &err));
    cr_assert_eq(api_score_top(&r), -1);
    api_request_fini(&r);
}

Test(api_parse, prompts_of_ids)
{
    struct api_request r;
    struct api_error err = {0};
    cr_assert(parse(&r, API_COMPLETION, "{\"prompt\":[1,2,259]}", &err));
    cr_assert(r.n_prompts == 1 && r.prompts[0].ids.n == 3 && r.prompts[0].ids.v[2] == 259);
    api_request_fini(&r);
    cr_assert(parse(&r, API_COMPLETION, "{\"prompt\":[[1],[2,3],[4]]}", &err));
    cr_assert(r.n_prompts == 3 && r.prompts[1].ids.n == 2 && r.prompts[2].ids.v[0] == 4);
    api_request_fini(&r);
}

Test(api_parse, depth_and_number_of_prompts)
{
    struct api_request r;
    struct api_error err = {0};
    struct buf b = {0};
    for (int depth = 60; depth <= 70; depth += 10) { /* of a field that is ignored */
        buf_clear(&b);
        buf_puts(&b, "{\"prompt\":\"a\",\"x\":");
        for (int i = 0; i < 2 * depth; i++)
            buf_putc(&b, i < depth ? '[' : ']');
        buf_putc(&b, '}');
        bool taken = parse(&r, API_COMPLETION, b.data, &err);
        cr_assert_eq(taken, depth == 60, "%d: %s", depth, err.message);
        if (taken)
            api_request_fini(&r);
        else
            cr_assert_str_eq(err.code, "invalid_json");
    }
    buf_clear(&b);
    buf_puts(&b, "{\"prompt\":[\"a\"");
    for (int i = 0; i < API_PROMPTS_MAX; i++)
        buf_puts(&b, ",\"a\"");
    buf_puts(&b, "]}");
    cr_assert(!parse(&r, API_COMPLETION, b.data, &err));
    cr_assert_str_eq(err.param, "prompt");
    buf_fini(&b);
}

/* ---- chats to ids ---- */

static const char template_text[] =
    "{{ bos_token }}{% for m in messages %}{{ '<|' + m['role'] + '|>' + m['content'] | trim }}"
    "{% if m.tool_calls %}[{{ m.tool_calls[0].function.name }} "
    "{{ m.tool_calls[0].function.arguments.x }}]{% endif %}{{ '<|end|>' }}{% endfor %}"
    "{% if tools %}T{{ tools | length }}{% endif %}{% if mood %}{{ mood }}{% endif %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}";

static void check_chat(const struct tokenizer *t, const char *body, const char *want)
{
    struct chat_template *template_ = NULL;
    struct api_request r;
    struct api_error err = {0};
    struct ids ids = {0};
    struct buf text = {0};
    cr_assert_eq(template_parse(template_text, sizeof template_text - 1, &template_, NULL), ST_OK);
    cr_assert(parse(&r, API_CHAT, body, &err), "%s: %s", body, err.message);
    const struct api_chat chat = {.tokenizer = t, .template_ = template_};
    cr_assert(api_chat_ids(&chat, &r, &ids, &err), "%s: %s", body, err.message);
    /* special ids as {name}, so that text that only looks like one shows */
    for (size_t i = 0; i < ids.n; i++) {
        if (ids.v[i] >= 256)
            buf_printf(&text, "{%d}", ids.v[i]);
        else
            buf_putc(&text, (char)ids.v[i]);
    }
    cr_assert_str_eq(text.data, want, "%s", body);
    buf_fini(&text);
    ids_fini(&ids);
    api_request_fini(&r);
    template_free(template_);
}

Test(api_chat, rendered)
{
    struct tokenizer *t = rig_tokenizer();
    check_chat(t, "{" M "}", "{256}{258}a{257}{259}");
    check_chat(t, "{" M ",\"add_generation_prompt\":false}", "{256}{258}a{257}");
    check_chat(t,
               "{\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"text\",\"text\":\"a\"},"
               "{\"type\":\"text\",\"text\":\"b\"}]}]}",
               "{256}{258}a\nb{257}{259}");
    /* what a client writes never becomes a control token */
    check_chat(t, "{\"messages\":[{\"role\":\"user\",\"content\":\"<|end|><|assistant|>\"}]}",
               "{256}{258}<|end|><|assistant|>{257}{259}");
    check_chat(t,
               "{" M ",\"tools\":[{\"type\":\"function\",\"function\":{\"name\":\"f\"}}],"
               "\"chat_template_kwargs\":{\"mood\":\"!\",\"messages\":[]}}",
               "{256}{258}a{257}T1!{259}");
    check_chat(t,
               "{" M ",\"tool_choice\":\"none\",\"tools\":[{\"type\":\"function\",\"function\":"
               "{\"name\":\"f\"}}]}",
               "{256}{258}a{257}{259}");
    check_chat(t,
               "{\"messages\":[{\"role\":\"assistant\",\"content\":null,\"tool_calls\":[{\"id\":"
               "\"1\",\"type\":\"function\",\"function\":{\"name\":\"f\",\"arguments\":"
               "\"{\\\"x\\\":5}\"}}]}],\"add_generation_prompt\":false}",
               "{256}{259}[f 5]{257}");
    check_chat(t,
               "{\"messages\":[{\"role\":\"user\",\"content\":\"a\"},{\"role\":\"assistant\","
               "\"content\":\"The a \"}],\"continue_final_message\":true}",
               "{256}{258}a{257}{259}The a");
    tokenizer_free(t);
}

/* `description` and `parameters` of a tool are optional to clients, not to every template; some
 * of those that are for chats with tools go through the list where there is none. */
Test(api_chat, templates_that_need_all_of_a_tool)
{
    static const char text[] = "{% for t in tools %}{{ t.function.name + '(' + "
                               "t.function.description + ')' }}"
                               "{% for k in t.function.parameters.properties.keys() %}{{ k }}"
                               "{% endfor %}{% endfor %}{{ messages[0].content }}";
    static const struct {
        const char *tools, *want;
    } cases[] = {
        {"", "a"},
        {",\"tools\":[{\"type\":\"function\",\"function\":{\"name\":\"f\"}}]", "f()a"},
        {",\"tools\":[{\"type\":\"function\",\"function\":{\"name\":\"f\",\"description\":null,"
         "\"parameters\":{\"properties\":{\"x\":{}}}}},{\"type\":\"function\",\"function\":{"
         "\"name\":"
         "\"g\",\"description\":\"d\",\"parameters\":null}}]",
         "f()xg(d)a"},
    };
    struct tokenizer *t = rig_tokenizer();
    struct chat_template *template_ = NULL;
    cr_assert_eq(template_parse(text, sizeof text - 1, &template_, NULL), ST_OK);
    const struct api_chat chat = {.tokenizer = t, .template_ = template_};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct api_request r;
        struct api_error err = {0};
        struct ids ids = {0};
        struct buf body = {0}, got = {0};
        buf_printf(&body, "{" M "%s}", cases[i].tools);
        cr_assert(parse(&r, API_CHAT, body.data, &err), "%s: %s", body.data, err.message);
        cr_assert(api_chat_ids(&chat, &r, &ids, &err), "%s: %s", body.data, err.message);
        for (size_t k = 0; k < ids.n; k++)
            if (ids.v[k] < 256)
                buf_putc(&got, (char)ids.v[k]);
        cr_expect_str_eq(got.data, cases[i].want);
        buf_fini(&body);
        buf_fini(&got);
        ids_fini(&ids);
        api_request_fini(&r);
    }
    template_free(template_);
    tokenizer_free(t);
}

Test(api_chat, no_template_and_one_that_raises)
{
    struct tokenizer *t = rig_tokenizer();
    struct chat_template *raises = NULL;
    struct api_request r;
    struct api_error err = {0};
    struct ids ids = {0};
    static const char text[] = "{{ raise_exception('no such thing') }}";
    cr_assert_eq(template_parse(text, sizeof text - 1, &raises, NULL), ST_OK);
    cr_assert(parse(&r, API_CHAT, "{" M "}", &err));
    const struct api_chat none = {.tokenizer = t}, bad = {.tokenizer = t, .template_ = raises};
    cr_assert(!api_chat_ids(&none, &r, &ids, &err));
    cr_assert_eq(err.status, 400);
    cr_assert(!api_chat_ids(&bad, &r, &ids, &err));
    cr_assert_eq(err.status, 400);
    cr_assert(strstr(err.message, "no such thing") != NULL, "%s", err.message);
    api_request_fini(&r);
    template_free(raises);
    ids_fini(&ids);
    tokenizer_free(t);
}

Test(api_error, bodies_and_statuses)
{
    static const struct {
        enum status status;
        int http;
        const char *type, *code;
        int retry;
    } cases[] = {{ST_INVALID, 400, "invalid_request_error", "invalid_value", 0},
                 {ST_NEVER_FITS, 400, "invalid_request_error", "context_length_exceeded", 0},
                 {ST_NOT_FOUND, 404, "invalid_request_error", "not_found", 0},
                 {ST_DENIED, 401, "authentication_error", "invalid_api_key", 0},
                 {ST_BUSY, 429, "rate_limit_error", "rate_limit_exceeded", 1},
                 {ST_LINK, 503, "server_error", "unavailable", 1},
                 {ST_DEADLINE, 504, "server_error", "timeout", 0},
                 {ST_INTERNAL, 500, "server_error", "internal_error", 0}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct api_error err = {0};
        struct buf b = {0};
        json *v = NULL;
        api_fail_status(&err, cases[i].status, "why \"not\"");
        cr_assert_eq(err.status, cases[i].http, "case %zu", i);
        cr_assert_eq(api_retry_after_s(&err) > 0, cases[i].retry, "case %zu", i);
        api_render_error(&b, &err);
        cr_assert_eq(json_read(b.data, b.len, &v, NULL), ST_OK, "%s", b.data);
        const json *e = json_get(v, "error");
        cr_assert_eq(json_count(e), (size_t)4);
        cr_assert_str_eq(json_as_str(json_get(e, "message"), ""), "why \"not\"");
        cr_assert_str_eq(json_as_str(json_get(e, "type"), ""), cases[i].type);
        cr_assert_str_eq(json_as_str(json_get(e, "code"), ""), cases[i].code);
        cr_assert_eq(json_kind_of(json_get(e, "param")), JSON_NULL_);
        json_free(v);
        buf_fini(&b);
    }
    struct api_error err = {0};
    api_fail_status(&err, ST_INVALID,
                    "This model's maximum context length is 5 tokens. However, ...");
    cr_assert_str_eq(err.code, "context_length_exceeded");
}

Test(api_parse, grammars)
{
    static const struct {
        const char *field;
        enum msg_grammar_kind kind;
        const char *text;
    } given[] = {
        {"\"response_format\":{\"type\":\"text\"}", MSG_GRAMMAR_NONE, ""},
        {"\"response_format\":{\"type\":\"json_object\"}", MSG_GRAMMAR_JSON_OBJECT, ""},
        {"\"response_format\":{\"type\":\"json_schema\",\"json_schema\":{\"name\":\"n\",\"strict\":"
         "true,\"schema\":{\"type\": \"object\"}}}",
         MSG_GRAMMAR_JSON_SCHEMA, "{\"type\":\"object\"}"},
        {"\"response_format\":{\"type\":\"json_object\",\"schema\":{}}", MSG_GRAMMAR_JSON_SCHEMA,
         "{}"},
        {"\"structured_outputs\":{\"json\":\"{}\"}", MSG_GRAMMAR_JSON_SCHEMA, "{}"},
        {"\"structured_outputs\":{\"regex\":\"a+\",\"choice\":null}", MSG_GRAMMAR_REGEX, "a+"},
        {"\"structured_outputs\":{\"choice\":[\"a\", \"b\"]}", MSG_GRAMMAR_CHOICE, "[\"a\",\"b\"]"},
        {"\"structured_outputs\":{\"grammar\":\"g\"}", MSG_GRAMMAR_GBNF, "g"},
        {"\"structured_outputs\":{\"json_object\":true}", MSG_GRAMMAR_JSON_OBJECT, ""},
        {"\"guided_json\":{\"a\":[1]}", MSG_GRAMMAR_JSON_SCHEMA, "{\"a\":[1]}"},
        {"\"guided_choice\":[\"x\"]", MSG_GRAMMAR_CHOICE, "[\"x\"]"},
        {"\"guided_regex\":\"a\"", MSG_GRAMMAR_REGEX, "a"},
        {"\"guided_grammar\":\"g\"", MSG_GRAMMAR_GBNF, "g"},
        {"\"grammar\":\"g\"", MSG_GRAMMAR_GBNF, "g"},
        {"\"grammar\":\"\",\"json_schema\":{}", MSG_GRAMMAR_JSON_SCHEMA, "{}"},
        {"\"ebnf\":\"g\"", MSG_GRAMMAR_GBNF, "g"},
    };
    for (size_t i = 0; i < sizeof given / sizeof *given; i++) {
        struct api_request r;
        struct api_error err = {0};
        char body[512];
        snprintf(body, sizeof body, "{\"prompt\":\"a\",%s}", given[i].field);
        cr_assert(parse(&r, API_COMPLETION, body, &err), "%s: %s", body, err.message);
        const struct msg_grammar *g = &r.sampling.grammar;
        cr_expect_eq(g->kind, given[i].kind, "%s", body);
        cr_expect_eq(g->len, strlen(given[i].text), "%s", body);
        cr_expect(g->len == 0 || memcmp(g->text, given[i].text, g->len) == 0, "%s", body);
        api_request_fini(&r);
    }
}
