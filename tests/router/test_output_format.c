/* Which rows are chosen for which templates, and when a prompt ends within reasoning. */
#include <criterion/criterion.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/buf.h"
#include "base/config_table.h"
#include "router/output/output_format.h"
#include "support/read_file.h"

static const char *format_of(const char *text)
{
    const struct output_format *f = output_format_for(text);
    return f ? f->name : "none";
}

static const char *reasoning_of(const char *text)
{
    const struct output_reasoning *r = output_reasoning_for(text);
    return r ? r->name : "none";
}

Test(output_format, by_name)
{
    cr_assert_str_eq(output_format_find("hermes")->name, "hermes");
    cr_assert_str_eq(output_format_find("openai")->name, "harmony");
    cr_assert_str_eq(output_format_find("deepseek_v31")->name, "deepseek_v3");
    cr_assert_str_eq(output_reasoning_find("qwen3")->name, "think");
    cr_assert_null(output_format_find("nonsense"));
    cr_assert_null(output_reasoning_find(""));
}

/* The configuration lists names by itself, for it stands on a lower floor. */
Test(output_format, every_name_of_the_configuration_is_there)
{
    static const char *const keys[] = {"router.tool_parser", "router.reasoning_parser"};
    for (int i = 0; i < 2; i++) {
        const struct config_key *key = config_key_find(keys[i], strlen(keys[i]));
        cr_assert_not_null(key);
        char *words = strdup(key->words);
        for (char *s = strtok(words, "|"); s; s = strtok(NULL, "|")) {
            if (strcmp(s, "auto") != 0 && strcmp(s, "none") != 0)
                cr_assert(i ? output_reasoning_find(s) != NULL : output_format_find(s) != NULL,
                          "%s", s);
        }
        free(words);
    }
}

Test(output_format, by_template)
{
    cr_assert_str_eq(format_of("{{ messages }}"), "none");
    cr_assert_str_eq(format_of("a '[TOOL_CALLS] ' b"), "mistral");
    cr_assert_str_eq(format_of("<tool_call>{...}</tool_call>"), "hermes");
    cr_assert_str_eq(format_of("<tool_call><function=x><parameter=y>"), "qwen3_coder");
    cr_assert_str_eq(format_of("<|start|>system<|message|> <|channel|>analysis"), "harmony");
    cr_assert_str_eq(reasoning_of("x"), "none");
    cr_assert_str_eq(reasoning_of("content.split('</think>')"), "think");
}

/* The folder of published templates, where it is there. */
Test(output_format, published_templates)
{
    static const char *const want[][3] = {
        {"GLM-4.6.jinja", "glm45", "think"},
        {"MiniMax-M1.jinja", "jamba", "none"},
        {"NousResearch-Hermes-3-Llama-3.1-8B-tool_use.jinja", "hermes", "none"},
        {"Qwen-Qwen2.5-7B-Instruct.jinja", "hermes", "none"},
        {"Qwen-Qwen3-0.6B.jinja", "hermes", "think"},
        {"Qwen3-Coder.jinja", "qwen3_coder", "none"},
        {"deepseek-ai-DeepSeek-R1-Distill-Qwen-32B.jinja", "deepseek_v3", "think"},
        {"deepseek-ai-DeepSeek-V3.1.jinja", "deepseek_v3", "think"},
        {"google-gemma-2-2b-it.jinja", "none", "none"},
        {"ibm-granite-granite-3.3-2B-Instruct.jinja", "granite", "granite"},
        {"meta-llama-Llama-3.1-8B-Instruct.jinja", "llama3_json", "none"},
        {"meta-llama-Llama-3.2-3B-Instruct.jinja", "llama3_json", "none"},
        {"microsoft-Phi-3.5-mini-instruct.jinja", "none", "none"},
        {"mistralai-Mistral-Nemo-Instruct-2407.jinja", "mistral", "none"},
        {"openai-gpt-oss-120b.jinja", "harmony", "harmony"},
    };
    const char *folder = BATON_SOURCE_DIR "/../shared/data/chat_templates";
    struct stat st;
    if (stat(folder, &st) != 0)
        cr_skip_test("no chat templates at %s", folder);
    for (size_t i = 0; i < sizeof want / sizeof *want; i++) {
        struct buf text = read_file("%s/%s", folder, want[i][0]);
        cr_assert_str_eq(format_of(text.data), want[i][1], "%s: %s", want[i][0],
                         format_of(text.data));
        cr_assert_str_eq(reasoning_of(text.data), want[i][2], "%s: %s", want[i][0],
                         reasoning_of(text.data));
        buf_fini(&text);
    }
}

Test(output_format, open_reasoning)
{
    const struct output_reasoning *think = output_reasoning_find("think"),
                                  *r1 = output_reasoning_find("deepseek_r1"),
                                  *harmony = output_reasoning_find("openai_gptoss");
#define PLACE(r, text) output_reasoning_place(r, text, strlen(text))
    cr_assert_eq(PLACE(think, "<|im_start|>assistant\n<think>\n"), OUTPUT_WITHIN_REASONING);
    cr_assert_eq(PLACE(think, "<|im_start|>assistant\n<think>\n\n</think>\n\n"),
                 OUTPUT_BEHIND_REASONING);
    cr_assert_eq(PLACE(think, "<|im_start|>assistant\n"), OUTPUT_BEFORE_REASONING);
    cr_assert_eq(PLACE(think, ""), OUTPUT_BEFORE_REASONING);
    cr_assert_eq(PLACE(r1, "<｜Assistant｜>"), OUTPUT_WITHIN_REASONING);
    cr_assert_eq(PLACE(r1, "<｜Assistant｜></think>"), OUTPUT_BEHIND_REASONING);
    cr_assert_eq(PLACE(harmony, "<|end|><|start|>assistant"), OUTPUT_BEFORE_REASONING);
    cr_assert_eq(PLACE(harmony, "<|start|>assistant<|channel|>final<|message|>"),
                 OUTPUT_BEHIND_REASONING);
#undef PLACE
#define UNFINISHED(text) output_reasoning_is_unfinished(think, text, strlen(text))
    cr_assert(UNFINISHED("<think>so far"));
    cr_assert(UNFINISHED("<think>a</think><think>"));
    cr_assert(!UNFINISHED("<think>a</think>b"));
    cr_assert(!UNFINISHED("a"));
#undef UNFINISHED
}
