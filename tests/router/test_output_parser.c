/* Every format: what comes out, and that it does not depend on how the text is cut into pieces. */
#include <criterion/criterion.h>

#include "router/output_rig.h"

struct example {
    const char *tools, *reasoning, *text, *want;
    bool inside, whole, cut, keep_special;
};

static void check(const struct example *e)
{
    struct output_args args = {.tools = e->tools ? output_format_find(e->tools) : NULL,
                               .reasoning =
                                   e->reasoning ? output_reasoning_find(e->reasoning) : NULL,
                               .inside_reasoning = e->inside,
                               .skip_special = !e->keep_special,
                               .whole = e->whole};
    cr_assert(!e->tools || args.tools, "%s", e->tools);
    cr_assert(!e->reasoning || args.reasoning, "%s", e->reasoning);
    for (uint64_t seed = 0; seed < 60; seed++) {
        size_t most = seed == 0 ? 0 : seed == 1 ? 1 : 1 + seed % 12;
        struct buf got = rig_run(args, e->text, most, seed, e->cut);
        cr_assert_str_eq(got.data, e->want,
                         "%s%s, pieces of %zu, seed %d, of\n%s\ngot\n%s\nwant\n%s",
                         e->tools ? e->tools : "", e->reasoning ? e->reasoning : "", most,
                         (int)seed, e->text, got.data, e->want);
        buf_fini(&got);
    }
}

static void check_all(const struct example *e, size_t n)
{
    for (size_t i = 0; i < n; i++)
        check(&e[i]);
}
#define CHECK(examples) check_all(examples, sizeof examples / sizeof *(examples))

Test(output_parser, plain_text_passes_as_it_is)
{
    static const struct example e[] = {
        {.text = " \n hello <tool_call> ", .want = "|C: \n hello <tool_call> "},
        {.text = "", .want = ""},
        {.text = "a\x01<|im_end|>\x02z", .want = "|C:az"},
        {.text = "a\x01<|im_end|>\x02z", .want = "|C:a<|im_end|>z", .keep_special = true},
        {.tools = "hermes",
         .text = "\n\n a <b> <tool_cal </tool_call> \n\n",
         .want = "|C:\n\n a <b> <tool_cal </tool_call> \n\n"},
        {.tools = "hermes", .reasoning = "think", .text = " \n", .want = "|C: \n"},
        {.tools = "mistral", .text = "a[TOOL_CALL", .want = "|C:a[TOOL_CALL"},
    };
    CHECK(e);
}

Test(output_parser, hermes)
{
    static const struct example e[] = {
        {.tools = "hermes",
         .text = "<tool_call>\n{\"name\": \"f\", \"arguments\": {\"a\": [1, {\"b\": \"}\"}]}}\n"
                 "</tool_call>",
         .want = "|B0:f|A:{\"a\": [1, {\"b\": \"}\"}]}|E"},
        {.tools = "hermes",
         .text = "Let me see.\n\n<tool_call>{\"name\":\"f\",\"arguments\":{}}</tool_call>\n"
                 "<tool_call>{\"name\":\"g\",\"arguments\":{\"x\":1}}</tool_call>\n",
         .want = "|C:Let me see.|B0:f|A:{}|E|B1:g|A:{\"x\":1}|E"},
        /* an order of its own, no arguments at all, a string of them, an id */
        {.tools = "hermes",
         .text =
             "<tool_call>{\"arguments\": {\"a\": 1}, \"id\": \"c1\", \"name\": \"f\"}</tool_call>",
         .want = "|B0:f:c1|A:{\"a\": 1}|E"},
        {.tools = "hermes",
         .text = "<tool_call>{\"name\": \"f\"}</tool_call>",
         .want = "|B0:f|A:{}|E"},
        {.tools = "hermes",
         .text = "<tool_call>{\"name\": \"f\", \"arguments\": null}</tool_call>",
         .want = "|B0:f|A:{}|E"},
        {.tools = "hermes",
         .text = "<tool_call>{\"name\": \"f\", \"arguments\": \"{\\\"a\\\": 1}\"}</tool_call>",
         .want = "|B0:f|A:{\"a\": 1}|E"},
        {.tools = "hermes",
         .text = "<tool_call>{\"type\":\"function\",\"function\":{\"name\":\"f\",\"parameters\":"
                 "{\"a\":-1.5e3}}}</tool_call>",
         .want = "|B0:f|A:{\"a\":-1.5e3}|E"},
        /* a newline within a string is escaped, the end marker may be missing */
        {.tools = "hermes",
         .text = "<tool_call>{\"name\": \"f\", \"arguments\": {\"c\": \"x\ny\"}}",
         .want = "|B0:f|A:{\"c\": \"x\\u000ay\"}|E"},
        {.tools = "hermes",
         .text = "<tool_call>{\"name\": \"f\\u00e9\", \"arguments\": {\"c\": \"\xe6\x97\xa5\"}}"
                 "</tool_call> and on",
         .want = "|B0:f\xc3\xa9|A:{\"c\": \"\xe6\x97\xa5\"}|E|C:and on"},
        /* special tokens between */
        {.tools = "hermes",
         .text = "\x01<tool_call>\x02{\"name\":\"f\",\"arguments\":{}}\x01</tool_call>\x02"
                 "\x01<|im_end|>\x02",
         .want = "|B0:f|A:{}|E"},
    };
    CHECK(e);
}

Test(output_parser, hermes_malformed)
{
    static const struct example e[] = {
        {.tools = "hermes",
         .text = "<tool_call>no</tool_call>",
         .want = "|C:<tool_call>no</tool_call>"},
        {.tools = "hermes",
         .text = "<tool_call></tool_call> x",
         .want = "|C:<tool_call></tool_call> x"},
        {.tools = "hermes",
         .text = "<tool_call>{\"arguments\": {}}</tool_call>",
         .want = "|C:<tool_call>{\"arguments\": {}}</tool_call>"},
        {.tools = "hermes",
         .text = "<tool_call>{\"name\": \"\"}",
         .want = "|C:<tool_call>{\"name\": \"\"}"},
        {.tools = "hermes",
         .text = "<tool_call>{\"name\": 5}",
         .want = "|C:<tool_call>{\"name\": 5}"},
        {.tools = "hermes",
         .text = "<tool_call>{\"name\": \"f\", \"arguments\": [1]}",
         .want = "|C:<tool_call>{\"name\": \"f\", \"arguments\": [1]}"},
        {.tools = "hermes",
         .text = "<tool_call><tool_call>{\"name\":\"f\",\"arguments\":{}}</tool_call>",
         .want = "|C:<tool_call>|B0:f|A:{}|E"},
        {.tools = "hermes", .text = "x <tool_call>", .want = "|C:x <tool_call>"},
        {.tools = "hermes", .text = "<tool_call>{\"na", .want = "|C:<tool_call>{\"na"},
        /* after it has begun it ends as far as it got */
        {.tools = "hermes",
         .text = "<tool_call>{\"name\": \"f\", \"arguments\": {\"a\": oops}}</tool_call>",
         .want = "|B0:f|A:{\"a\": |E|C:oops}}</tool_call>"},
        {.tools = "hermes",
         .whole = true,
         .text = "<tool_call>{\"name\": \"f\", \"arguments\": {\"a\": oops}}</tool_call>",
         .want = "|C:<tool_call>{\"name\": \"f\", \"arguments\": {\"a\": oops}}</tool_call>"},
        {.tools = "hermes",
         .cut = true,
         .text = "<tool_call>{\"name\": \"f\", \"arguments\": {\"a\": \"lo",
         .want = "|B0:f|A:{\"a\": \"lo|E"},
        {.tools = "hermes",
         .cut = true,
         .whole = true,
         .text = "<tool_call>{\"name\": \"f\", \"arguments\": {\"a\": \"lo",
         .want = "|B0:f|A:{\"a\": \"lo|E"},
        {.tools = "hermes",
         .whole = true,
         .text = "<tool_call>{\"name\": \"f\", \"arguments\": {\"a\": \"lo",
         .want = "|C:<tool_call>{\"name\": \"f\", \"arguments\": {\"a\": \"lo"},
        {.tools = "hermes",
         .whole = true,
         .text = "a <tool_call>{\"name\":\"f\",\"arguments\":{\"a\":1}}</tool_call>",
         .want = "|C:a|B0:f|A:{\"a\":1}|E"},
    };
    CHECK(e);
}

Test(output_parser, llama3)
{
    static const struct example e[] = {
        {.tools = "llama3_json",
         .text = "{\"name\": \"f\", \"parameters\": {\"a\": \"b\"}}",
         .want = "|B0:f|A:{\"a\": \"b\"}|E"},
        {.tools = "llama3_json",
         .text = "\n\n{\"type\": \"function\", \"name\": \"f\", \"parameters\": {}}; "
                 "{\"name\": \"g\", \"parameters\": {}}",
         .want = "|B0:f|A:{}|E|B1:g|A:{}|E"},
        {.tools = "llama3_json",
         .text =
             "\x01<|python_tag|>\x02{\"name\": \"unknown\", \"arguments\": {}}\x01<|eom_id|>\x02",
         .want = "|B0:unknown|A:{}|E"},
        /* JSON that is no call, and calls within the text */
        {.tools = "llama3_json",
         .text = "{\"city\": \"Paris\"}",
         .want = "|C:{\"city\": \"Paris\"}"},
        {.tools = "llama3_json",
         .text = "{\"name\": \"unknown\", \"parameters\": {}}",
         .want = "|C:{\"name\": \"unknown\", \"parameters\": {}}"},
        {.tools = "llama3_json",
         .text = " so {\"name\": \"f\", \"parameters\": {}} and {} {\"a\": {\"b\": 1}} more",
         .want = "|C: so|B0:f|A:{}|E|C:and {} {\"a\": {\"b\": 1}} more"},
        {.tools = "llama3_json", .text = "a {\"name", .want = "|C:a {\"name"},
        {.tools = "llama3_json", .text = "\x01<|python_tag|>\x02print(1)", .want = "|C:print(1)"},
        {.tools = "llama3_json", .text = "{", .want = "|C:{"},
        {.tools = "llama3_function",
         .text = "ok <function=f>{\"a\": 1}</function>",
         .want = "|C:ok|B0:f|A:{\"a\": 1}|E"},
    };
    CHECK(e);
}

Test(output_parser, mistral)
{
    static const struct example e[] = {
        {.tools = "mistral",
         .text = "\x01[TOOL_CALLS]\x02[{\"name\": \"f\", \"arguments\": {\"a\": 1}, \"id\": "
                 "\"abcdefghi\"}, {\"name\": \"g\", \"arguments\": {}}]",
         .want = "|B0:f|A:{\"a\": 1}|E|B1:g|A:{}|E"},
        {.tools = "mistral",
         .text = "\x01[TOOL_CALLS]\x02"
                 "f\x01[ARGS]\x02{\"a\": 1}\x01[TOOL_CALLS]\x02g\x01[CALL_ID]\x02"
                 "123456789\x01[ARGS]\x02{}",
         .want = "|B0:f|A:{\"a\": 1}|E|B1:g:123456789|A:{}|E"},
        {.tools = "mistral",
         .text = "hm [TOOL_CALLS]f{\"a\": 1}",
         .want = "|C:hm|B0:f|A:{\"a\": 1}|E"},
        {.tools = "mistral", .text = "[TOOL_CALLS] [1]", .want = "|C:[TOOL_CALLS] [1]"},
        {.tools = "mistral", .text = "[TOOL_CALLS]name only", .want = "|C:[TOOL_CALLS]name only"},
        {.tools = "mistral", .text = "[TOOL_CALLS][]", .want = "|C:[TOOL_CALLS][]"},
        {.tools = "mistral",
         .reasoning = "mistral",
         .text = "[THINK]maybe [TOOL_CALLS], \x01[TOOL_CALLS]\x02"
                 "f\x01[ARGS]\x02{}",
         .want = "|R:maybe [TOOL_CALLS],|B0:f|A:{}|E"},
        {.tools = "mistral",
         .reasoning = "mistral",
         .text = "\x01[THINK]\x02so\x01[/THINK]\x02\x01[TOOL_CALLS]\x02"
                 "f\x01[ARGS]\x02{}",
         .want = "|R:so|B0:f|A:{}|E"},
    };
    CHECK(e);
}

Test(output_parser, other_json)
{
    static const struct example e[] = {
        {.tools = "granite",
         .text = "<|tool_call|>[{\"name\": \"f\", \"arguments\": {\"a\": 1}}]",
         .want = "|B0:f|A:{\"a\": 1}|E"},
        {.tools = "granite",
         .text = "<tool_call>[{\"name\": \"f\", \"arguments\": {}}]",
         .want = "|B0:f|A:{}|E"},
        {.tools = "phi4_mini",
         .text = "functools[{\"name\": \"f\", \"arguments\": {\"a\": 1}}]",
         .want = "|B0:f|A:{\"a\": 1}|E"},
        {.tools = "phi4_mini", .text = "functools are fine", .want = "|C:functools are fine"},
        {.tools = "phi4_mini",
         .text =
             "\x01<|tool_call|>\x02[{\"name\": \"f\", \"parameters\": {}}]\x01<|/tool_call|>\x02",
         .want = "|B0:f|A:{}|E"},
        {.tools = "jamba",
         .text = "<tool_calls>\n{\"name\": \"f\", \"arguments\": {}}\n"
                 "{\"name\": \"g\", \"arguments\": {}}\n</tool_calls>",
         .want = "|B0:f|A:{}|E|B1:g|A:{}|E"},
        {.tools = "cohere",
         .reasoning = "cohere",
         .text = "\x01<|START_THINKING|>\x02I plan.\x01<|END_THINKING|><|START_ACTION|>\x02[\n "
                 "{\"tool_call_id\": \"0\", \"tool_name\": \"f\", \"parameters\": {\"a\": 1}}\n]"
                 "\x01<|END_ACTION|>\x02",
         .want = "|R:I plan.|B0:f:0|A:{\"a\": 1}|E"},
        {.reasoning = "cohere",
         .text = "<|START_THINKING|>why<|END_THINKING|><|START_RESPONSE|>so",
         .want = "|R:why|C:so"},
        {.reasoning = "cohere",
         .text = "<|START_THINKING|>why<|END_THINKING|>\x01<|START_RESPONSE|>\x02so"
                 "\x01<|END_RESPONSE|>\x02",
         .want = "|R:why|C:so"},
    };
    CHECK(e);
}

Test(output_parser, deepseek_and_kimi)
{
    static const struct example e[] = {
        {.tools = "deepseek_v3",
         .text =
             "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>f\n```json\n"
             "{\"a\": 1}\n```<｜tool▁call▁end｜>\n<｜tool▁call▁begin｜>function<｜tool▁sep｜>g\n"
             "```json\n{}\n```<｜tool▁call▁end｜><｜tool▁calls▁end｜>",
         .want = "|B0:f|A:{\"a\": 1}|E|B1:g|A:{}|E"},
        {.tools = "deepseek_v31",
         .reasoning = "think",
         .inside = true,
         .text =
             "hm</think>I look.<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>f<｜tool▁sep｜>{\"a\": "
             "{\"b\": []}}<｜tool▁call▁end｜><｜tool▁calls▁end｜>",
         .want = "|R:hm|C:I look.|B0:f|A:{\"a\": {\"b\": []}}|E"},
        {.tools = "deepseek_v3",
         .text = "<｜tool▁calls▁begin｜>?",
         .want = "|C:<｜tool▁calls▁begin｜>?"},
        {.tools = "deepseek_v3", .text = "a<｜b", .want = "|C:a<｜b"},
        {.tools = "kimi_k2",
         .text = "<|tool_calls_section_begin|><|tool_call_begin|>functions.f:0"
                 "<|tool_call_argument_begin|>{\"a\": 1}<|tool_call_end|><|tool_call_begin|>"
                 "functions.g:1<|tool_call_argument_begin|>{}<|tool_call_end|>"
                 "<|tool_calls_section_end|>",
         .want = "|B0:f:functions.f:0|A:{\"a\": 1}|E|B1:g:functions.g:1|A:{}|E"},
    };
    CHECK(e);
}

Test(output_parser, xml)
{
    static const struct example e[] = {
        {.tools = "qwen3_coder",
         .text =
             "<tool_call>\n<function=f>\n<parameter=s>\n12\n  \"x\"\n</parameter>\n<parameter=n>"
             "\n 5 \n</parameter>\n<parameter=u>\n{\"k\": [1]}\n</parameter>\n<parameter=v>\n"
             "plain\n</parameter>\n</function>\n</tool_call>",
         .want = "|B0:f|A:{\"s\": \"12\\n  \\\"x\\\"\", \"n\": 5, \"u\": {\"k\": [1]}, \"v\": "
                 "\"plain\"}|E"},
        {.tools = "qwen3_coder",
         .text = "ok\n<function=f>\n</function>\n</tool_call>\n<tool_call>\n<function=g>\n"
                 "<parameter=n>\nTrue\n</parameter>\n</function>\n</tool_call>",
         .want = "|C:ok|B0:f|A:{}|E|B1:g|A:{\"n\": true}|E"},
        {.tools = "qwen3_coder",
         .text = "<tool_call>\n<function=f>\n<parameter=n>\n1\n</parameter>",
         .want = "|B0:f|A:{\"n\": 1}|E"},
        {.tools = "qwen3_coder",
         .cut = true,
         .text = "<function=f><parameter=s>ab\n\n</param",
         .want = "|B0:f|A:{\"s\": \"ab\\n\\n</param|E"},
        {.tools = "qwen3_coder",
         .text = "<tool_call><function=f g>x",
         .want = "|C:<tool_call><function=f g>x"},
        {.tools = "glm45",
         .reasoning = "think",
         .text =
             "<think>t</think>\n<tool_call>f\n<arg_key>s</arg_key>\n<arg_value>a\tb</arg_value>\n"
             "<arg_key>n</arg_key>\n<arg_value>[1, 2]</arg_value>\n</tool_call><tool_call>g"
             "</tool_call>",
         .want = "|R:t|B0:f|A:{\"s\": \"a\\tb\", \"n\": [1, 2]}|E|B1:g|A:{}|E"},
        {.tools = "minimax_m2",
         .text = "<minimax:tool_call>\n<invoke name=\"f\">\n<parameter name=\"s\">1</parameter>\n"
                 "</invoke>\n<invoke name=\"g\">\n</invoke>\n</minimax:tool_call>",
         .want = "|B0:f|A:{\"s\": \"1\"}|E|B1:g|A:{}|E"},
        {.tools = "seed_oss",
         .reasoning = "seed_oss",
         .text =
             "<seed:think>x</seed:think><seed:tool_call>\n<function=f>\n<parameter=n>1</parameter>"
             "\n</function>\n</seed:tool_call>",
         .want = "|R:x|B0:f|A:{\"n\": 1}|E"},
        {.tools = "deepseek_v32",
         .text =
             "<｜DSML｜function_calls>\n<｜DSML｜invoke name=\"f\">\n<｜DSML｜parameter name=\"a\" "
             "string=\"true\">1</｜DSML｜parameter>\n<｜DSML｜parameter name=\"b\" "
             "string=\"false\">"
             "1</｜DSML｜parameter>\n</｜DSML｜invoke>\n</｜DSML｜function_calls>",
         .want = "|B0:f|A:{\"a\": \"1\", \"b\": 1}|E"},
    };
    CHECK(e);
}

Test(output_parser, pythonic)
{
    static const struct example e[] = {
        {.tools = "pythonic",
         .text = "[f(a=1, b='it\\'s', c=[True, None, (1.5,)]), g()]",
         .want = "|B0:f|A:{\"a\": 1, \"b\": \"it's\", \"c\": [true, null, [1.5]]}|E|B1:g|A:{}|E"},
        {.tools = "pythonic",
         .text = "[f(d={'k': \"v\", 'l': {}}, s=\"a)b,\" \"c\\n\\x41\")]",
         .want = "|B0:f|A:{\"d\": {\"k\": \"v\", \"l\": {}}, \"s\": \"a)b,c\\nA\"}|E"},
        {.tools = "pythonic", .text = "[1, 2]", .want = "|C:[1, 2]"},
        {.tools = "pythonic", .text = "[f]", .want = "|C:[f]"},
        {.tools = "pythonic", .text = "[unknown(a=1)]", .want = "|C:[unknown(a=1)]"},
        {.tools = "pythonic", .text = "[f(1)]", .want = "|C:[f(1)]"},
        {.tools = "pythonic", .text = "[f(a=1, b=x)]", .want = "|B0:f|A:{\"a\": 1|E|C:b=x)]"},
        {.tools = "pythonic", .whole = true, .text = "[f(a=1, b=x)]", .want = "|C:[f(a=1, b=x)]"},
        {.tools = "llama4_pythonic",
         .text = "\x01<|python_start|>\x02[f(a=1)]\x01<|python_end|>\x02",
         .want = "|B0:f|A:{\"a\": 1}|E"},
        {.tools = "lfm2",
         .text = "<|tool_call_start|>[f(a=\"1\")]<|tool_call_end|>Done.",
         .want = "|B0:f|A:{\"a\": \"1\"}|E|C:Done."},
        {.tools = "olmo3",
         .text = "<function_calls>\nf(a=1)\ng(b=2)\n</function_calls>",
         .want = "|B0:f|A:{\"a\": 1}|E|B1:g|A:{\"b\": 2}|E"},
    };
    CHECK(e);
}

Test(output_parser, reasoning)
{
    static const struct example e[] = {
        {.reasoning = "think", .text = "<think>\na b \n</think>\n\nc\n", .want = "|R:a b|C:c\n"},
        {.reasoning = "think", .text = "\n<think></think>c", .want = "|C:c"},
        {.reasoning = "think", .text = "no <think>x</think>", .want = "|C:no <think>x</think>"},
        {.reasoning = "think", .inside = true, .text = "a</think>b", .want = "|R:a|C:b"},
        {.reasoning = "think", .inside = true, .text = "<think>a</think>b", .want = "|R:a|C:b"},
        {.reasoning = "think", .inside = true, .text = "a </thin \n", .want = "|R:a </thin \n"},
        {.reasoning = "deepseek_r1", .inside = true, .text = "", .want = ""},
        {.reasoning = "granite",
         .text = "Here is my thought process: a Here is my response: b",
         .want = "|R:a|C:b"},
        {.reasoning = "granite",
         .text = "<think>a</think>\n<response>b < c</response>",
         .want = "|R:a|C:b < c"},
        {.reasoning = "granite", .text = "Here is my cat", .want = "|C:Here is my cat"},
        {.tools = "hermes",
         .reasoning = "qwen3",
         .text =
             "<think>I call <tool_call>.</think>\n\n<tool_call>{\"name\":\"f\",\"arguments\":{}}"
             "</tool_call>",
         .want = "|R:I call <tool_call>.|B0:f|A:{}|E"},
        {.tools = "llama3_json",
         .reasoning = "think",
         .text = "<think>x</think>\n{\"name\":\"f\",\"parameters\":{}}",
         .want = "|R:x|B0:f|A:{}|E"},
    };
    CHECK(e);
}

Test(output_parser, harmony)
{
    static const struct example e[] = {
        {.tools = "harmony",
         .reasoning = "harmony",
         .text = "\x01<|channel|>\x02"
                 "analysis\x01<|message|>\x02I think.\x01<|end|>"
                 "<|start|>\x02"
                 "assistant\x01<|channel|>\x02"
                 "final\x01<|message|>\x02Hello\n\x01<|return|>\x02",
         .want = "|R:I think.|C:Hello\n"},
        {.tools = "harmony",
         .reasoning = "harmony",
         .text = "<|channel|>analysis<|message|>x<|end|><|start|>assistant<|channel|>commentary "
                 "to=functions.f <|constrain|>json<|message|>{\"a\": 1}<|call|>",
         .want = "|R:x|B0:f|A:{\"a\": 1}|E"},
        {.tools = "harmony",
         .reasoning = "harmony",
         .text = "<|channel|>commentary<|message|>I look.<|end|><|start|>assistant to=functions.f"
                 "<|channel|>commentary json<|message|>{}<|call|><|start|>assistant"
                 "<|channel|>commentary to=functions.g<|message|>{\"b\":2}",
         .want = "|C:I look.|B0:f|A:{}|E|B1:g|A:{\"b\":2}|E"},
        {.tools = "harmony",
         .reasoning = "harmony",
         .text = " plain text <|b",
         .want = "|C: plain text <|b"},
        {.tools = "harmony",
         .reasoning = "harmony",
         .text = "<|channel|>analysis to=python<|message|>1+1<|end|>",
         .want = "|R:1+1"},
        {.tools = "harmony",
         .reasoning = "harmony",
         .text = "<|channel|>commentary to=functions.f<|message|>nonsense<|call|>",
         .want = "|C:<|channel|>commentary to=functions.f<|message|>nonsense"},
        {.reasoning = "harmony", .text = "<|channel|>final<|message|>a<|end|>", .want = "|C:a"},
        /* cut within a header: it is neither an answer nor a call */
        {.tools = "harmony",
         .reasoning = "harmony",
         .cut = true,
         .text = "<|chan",
         .want = "|C:<|chan"},
        {.tools = "harmony",
         .reasoning = "harmony",
         .cut = true,
         .text = "\x01<|channel|>\x02"
                 "analysis",
         .want = ""},
        {.tools = "harmony",
         .reasoning = "harmony",
         .cut = true,
         .keep_special = true,
         .text = "<|channel|>analysis<|message|>t<|end|><|start|>assistant<|channel|>commentary "
                 "to=functions.f",
         .want = "|R:t"},
        {.reasoning = "harmony",
         .text = "<|channel|>analysis<|message|>t<|end|><|start|>assistant",
         .want = "|R:t|C:<|start|>assistant"},
    };
    CHECK(e);
}

/* Texts made of markers and scraps in any order: whatever they are, how they are cut changes
 * nothing, and no piece of a marker's text gets lost where it is no marker (the parser for plain
 * text gives all of it). */
Test(output_parser, random_texts_in_random_pieces)
{
    static const char *const names[] = {
        "llama3_json", "hermes",   "granite",      "phi4_mini", "mistral",
        "jamba",       "cohere",   "deepseek_v3",  "kimi_k2",   "qwen3_coder",
        "glm45",       "pythonic", "lfm2",         "harmony",   "minimax_m2",
        "seed_oss",    "olmo3",    "deepseek_v32", "nemotron",  "llama3_function"};
    static const char *const scraps[] = {"{\"name\": \"f\", \"arguments\": {\"a\": 1}}",
                                         "{",
                                         "}",
                                         "[",
                                         "]",
                                         ",",
                                         "\"name\"",
                                         ":",
                                         "\"f\"",
                                         "\"arguments\"",
                                         "\"parameters\"",
                                         "{\"x\": \"y\"}",
                                         "f(a=1)",
                                         "f(",
                                         "a=",
                                         ")",
                                         "'",
                                         "\"",
                                         "\\",
                                         "\n",
                                         " ",
                                         "word",
                                         "<think>",
                                         "</think>",
                                         "\xe6\x97\xa5",
                                         "functions.f:0",
                                         "1",
                                         "to=functions.f",
                                         "assistant",
                                         "analysis",
                                         "final",
                                         "<|message|>",
                                         "<|channel|>",
                                         "<|start|>",
                                         "<|end|>",
                                         "<|call|>",
                                         "true",
                                         "</",
                                         "<",
                                         "function<｜tool▁sep｜>f",
                                         "[ARGS]",
                                         ">",
                                         "\x01<s>\x02"};
    for (uint64_t seed = 0; seed < 6000; seed++) {
        const struct output_format *f =
            output_format_find(names[rng_hash(seed, 1, 0, 0) % (sizeof names / sizeof *names)]);
        struct buf text = {0};
        for (uint64_t k = 0; k < 2 + rng_hash(seed, 2, 0, 0) % 18; k++) {
            uint64_t draw = rng_hash(seed, 3, k, 0);
            const char *own[] = {f->open[0],    f->close[0],    f->call_open, f->call_close,
                                 f->param_open, f->value_close, f->key_end,   f->value_open};
            const char *s = own[draw / 7 % 8];
            if (draw % 7 < 4 || !s)
                s = scraps[draw / 7 % (sizeof scraps / sizeof *scraps)];
            buf_puts(&text, s);
        }
        struct output_args args = {.tools = f,
                                   .reasoning = output_reasoning_find("think"),
                                   .inside_reasoning = seed % 5 == 0,
                                   .led = seed % 7 < 2,
                                   .keep_blanks = seed % 7 == 1,
                                   .forced = seed % 11 == 0,
                                   .skip_special = seed % 3 != 0,
                                   .whole = seed % 2};
        bool cut = seed % 4 == 0;
        struct buf want = rig_run(args, text.data, 0, seed, cut);
        for (size_t most = 1; most < 20; most += 6) {
            struct buf got = rig_run(args, text.data, most, seed, cut);
            cr_assert_str_eq(got.data, want.data, "%s, seed %d, pieces of %zu, of\n%s\ngot\n%s\n%s",
                             f->name, (int)seed, most, text.data, got.data, want.data);
            buf_fini(&got);
        }
        buf_fini(&want);
        buf_fini(&text);
    }
}

/* Without an event nothing is remembered but what may still matter, and long texts take as long as
 * their length says. */
Test(output_parser, long_texts)
{
    static const struct {
        const char *format, *lead, *fill, *end, *want;
    } cases[] = {
        {"hermes", "", "<tool_", "", NULL},
        {"hermes", "<tool_call>{\"name\": \"f\", \"arguments\": {\"a\": \"", "long ", "\"}}", NULL},
        {"hermes", "<tool_call>{\"arguments\": {\"a\": \"", "long ", "\"}, \"name\": \"f\"}", "|C"},
        {"hermes", "<tool_call>{\"x\": \"", "long ", "\", \"name\": \"f\"}", "|C"},
        {"hermes", "<tool_call>", " ", "{\"name\": \"f\"}", "|C"},
        {"hermes", "<tool_call>{", " ", "\"name\": \"f\"}", "|C"},
        {"qwen3_coder", "<tool_call><function=f>", "\n", "</function>", "|C"},
        {"qwen3_coder", "<tool_call>", "\n", "<function=f></function>", "|C"},
        {"pythonic", "[f(", " ", "a=1)]", "|C"},
        {"harmony", "<|channel|>commentary to=functions.f<|message|>", " ", "{}", "|C"},
        {"mistral", "[TOOL_CALLS]", "name", "{}", "|C"},
        {"qwen3_coder", "<function=f><parameter=s>", "</param", "</parameter>", NULL},
        {"qwen3_coder", "<function=f><parameter=n>", "[1, ", "</parameter>", NULL},
        {"pythonic", "[f(a=\"", "long", "\")]", "|C"},
        {"harmony", "<|channel|>", "x", "<|message|>", "|C"},
        {"glm45", "<tool_call>", "n", "</tool_call>", "|C"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct buf text = {0};
        buf_puts(&text, cases[i].lead);
        while (text.len < 300000)
            buf_puts(&text, cases[i].fill);
        buf_puts(&text, cases[i].end);
        struct output_args args = {.tools = output_format_find(cases[i].format),
                                   .skip_special = true};
        struct buf a = rig_run(args, text.data, 0, 1, false);
        struct buf b = rig_run(args, text.data, 7, 1, false);
        cr_assert_eq(a.len, b.len, "case %zu", i);
        cr_assert(memcmp(a.data, b.data, a.len) == 0, "case %zu", i);
        cr_assert(!cases[i].want || strncmp(a.data, cases[i].want, 2) == 0, "case %zu: %.40s", i,
                  a.data);
        buf_fini(&a);
        buf_fini(&b);
        buf_fini(&text);
    }
}
