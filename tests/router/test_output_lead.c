/* What may stand before a constrained answer: the whole of it in the form of each family. */
#include <criterion/criterion.h>
#include <string.h>

#include "router/output/output_lead.h"
#include "tokenizer/grammar/grammar.h"

/* The answer is {} or {"a"}; \1 and \2 stand around special tokens. */
#define ANSWER "[\"{}\",\"{\\\"a\\\"}\"]"

enum verdict { NO, SO_FAR, COMPLETE };
static const struct example {
    const char *reasoning;
    bool within, gap;
    const char *text;
    enum verdict want;
} examples[] = {
    {"think", true, true, "", SO_FAR},
    {"think", true, true, "{}", SO_FAR},
    {"think", true, true, "hm </thin </think>", SO_FAR},
    {"think", true, true, "hm</think>{}", COMPLETE},
    {"think", true, true, "\n<think>\n\xff\xfe", NO},
    {"think", true, true, "\xc3</think>\n\n{}", COMPLETE},
    {"think", true, true, "</think>\n\n\n{}", NO},
    {"think", true, false, "</think>\n{}", NO},
    {"think", true, false, "</think>{\"a\"}", COMPLETE},
    {"think", true, true, "<think>hm</think>{}", COMPLETE},
    {"think", true, true, "\1<think>\2hm\1</think>\2 {}", COMPLETE},
    {"think", true, true, "hm\1<tool_call>\2", NO},
    {"think", true, true, "hm</think>{\"b", NO},
    {"think", false, true, "{}", COMPLETE},
    {"think", false, true, "hm", NO},
    {"think", false, true, "\n{}", COMPLETE},
    {"think", false, false, "\n{}", NO},
    {"think", false, true, "\n<think>hm</think>\n{}", COMPLETE},
    {"think", false, true, "\n<think>\n{}", SO_FAR},
    {"think", false, true, "<think>\nhm\n</think>\n\n{}", COMPLETE},
    {"think", false, true, "<think>{}", SO_FAR},
    {"deepseek_r1", true, true, "hm</think>\n{}", COMPLETE},
    {"mistral", false, true, "\1[THINK]\2hm\1[/THINK]\2{}", COMPLETE},
    {"mistral", false, true, "[THINK]hm[/THINK]{}", COMPLETE},
    {"seed_oss", true, true, "hm</seed:think>{}", COMPLETE},
    {"granite", false, true, "<think>hm</think>\n<response>{}", COMPLETE},
    {"granite", false, true, "Here's my thought process: hm\nHere's my response:\n{}", COMPLETE},
    {"granite", false, true, "{}", COMPLETE},
    {"cohere", true, true, "hm\1<|END_THINKING|>\2\1<|START_RESPONSE|>\2{}", COMPLETE},
    {"cohere", true, true, "hm\1<|END_THINKING|>\2{}", COMPLETE},
    {"cohere", true, true, "hm<|END_THINKING|><|START_RESPONSE|>{}", COMPLETE},
    {"cohere", true, true, "hm\1<|START_RESPONSE|>\2{}", NO},
#define CHANNEL "\1<|channel|>\2"
#define MESSAGE "\1<|message|>\2"
#define END "\1<|end|>\2\1<|start|>\2assistant"
    {"harmony", false, true, "{}", NO},
    {"harmony", false, true, CHANNEL "final" MESSAGE "{}", COMPLETE},
    {"harmony", false, true, CHANNEL "final \1<|constrain|>\2json" MESSAGE "{}", COMPLETE},
    {"harmony", false, true, CHANNEL "analysis" MESSAGE "hm" END CHANNEL "final" MESSAGE "{}",
     COMPLETE},
    {"harmony", false, true,
     CHANNEL "analysis" MESSAGE "a" END CHANNEL "analysis" MESSAGE "b" END CHANNEL "final" MESSAGE
             "{\"a\"}",
     COMPLETE},
    {"harmony", false, true, CHANNEL "analysis" MESSAGE "a" CHANNEL, NO},
    {"harmony", false, true, CHANNEL "analysis" MESSAGE "a<|channel|>", NO},
    {"harmony", false, true, CHANNEL "analysis" MESSAGE "a\1<|return|>\2", NO},
    {"harmony", false, true, CHANNEL "commentary", NO},
    {"harmony", false, true, CHANNEL "final" MESSAGE "no", NO},
};

static struct grammar_run *run_of(const struct example *e, struct grammar **g)
{
    const struct output_lead lead = {output_reasoning_find(e->reasoning), e->within, e->gap};
    struct buf text = {0};
    struct grammar_run *run = NULL;
    struct error err = {0};
    output_lead_put(&lead, &text);
    size_t bytes = text.len;
    cr_assert(bytes > 0 && bytes <= GRAMMAR_LEAD_MAX);
    buf_puts(&text, ANSWER);
    const struct grammar_source source = {
        .kind = GRAMMAR_CHOICE, .text = text.data, .len = text.len, .lead = bytes};
    cr_assert_eq(grammar_compile_source(NULL, &source, g, &err), ST_OK, "%s: %s", text.data,
                 err.text);
    cr_assert_eq(grammar_run_create(*g, NULL, &run, &err), ST_OK);
    buf_fini(&text);
    return run;
}

Test(output_lead, every_family)
{
    for (size_t i = 0; i < sizeof examples / sizeof *examples; i++) {
        const struct example *e = &examples[i];
        struct grammar *g = NULL;
        struct grammar_run *run = run_of(e, &g);
        struct grammar_state at = grammar_begin(run);
        enum verdict got = SO_FAR;
        for (const char *s = e->text; *s && got != NO; s++) {
            char c = *s == 1 || *s == 2 ? (char)0xff : *s;
            cr_expect(!grammar_is_complete(run, &at), "example %zu", i);
            if (grammar_accept_bytes(run, &at, &c, 1, NULL) != ST_OK)
                got = NO;
        }
        if (got == SO_FAR && grammar_is_complete(run, &at))
            got = COMPLETE;
        cr_expect_eq(got, e->want, "example %zu: %s", i, e->text);
        grammar_run_free(run);
        grammar_free(g);
    }
}
