/* Answers that are calls and nothing else, or reasoning and calls. */
#include <criterion/criterion.h>

#include "router/output_rig.h"

Test(output_forced, one_and_any)
{
    struct output_args one = {.forced_name = "f", .skip_special = true},
                       any = {.forced = true, .skip_special = true};
    for (size_t most = 0; most < 9; most++) {
        struct buf a = rig_run(one, " {\"a\": {\"name\": 1}} ", most, most, false);
        cr_assert_str_eq(a.data, "|B0:f|A:{\"a\": {\"name\": 1}}|E");
        struct buf b = rig_run(any,
                               "[{\"name\": \"f\", \"parameters\": {}}, {\"name\": \"g\", "
                               "\"parameters\": {\"x\": 1}}]",
                               most, most, false);
        cr_assert_str_eq(b.data, "|B0:f|A:{}|E|B1:g|A:{\"x\": 1}|E");
        struct buf c = rig_run(one, "no", most, most, false);
        cr_assert_str_eq(c.data, "|C:no");
        struct output_args odd = {.forced_name = " <|end|> \"\xe5\x90\x8d ", .skip_special = true};
        struct buf d = rig_run(odd, "{}", most, most, false);
        cr_assert_str_eq(d.data, "|B0: <|end|> \"\xe5\x90\x8d |A:{}|E");
        struct buf e =
            rig_run(any, "[{\"name\": \" <a b>\\n\", \"parameters\": {}}]", most, most, false);
        cr_assert_str_eq(e.data, "|B0: <a b>\n|A:{}|E");
        buf_fini(&a);
        buf_fini(&b);
        buf_fini(&c);
        buf_fini(&d);
        buf_fini(&e);
    }
}

Test(output_forced, cut_off)
{
    static const struct {
        const char *name, *text, *want;
    } cases[] = {
        {NULL, "[", ""},
        {NULL, "[{\"na", ""},
        {NULL, "[{\"parameters\": {\"a\": 1}, \"name\": \"f", ""},
        {NULL, "[{\"name\": \"f\", \"para", "|B0:f|E"},
        {NULL, "[{\"name\": \"f\", \"parameters\": {}}, {\"name", "|B0:f|A:{}|E"},
        {"f", " ", ""},
        {"f", "{\"a", "|B0:f|A:{\"a|E"},
        {NULL, "no", "|C:no"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct output_args args = {
            .forced = true, .forced_name = cases[i].name, .skip_special = true};
        for (size_t most = 0; most < 18; most++) {
            args.whole = most >= 9;
            struct buf got = rig_run(args, cases[i].text, most % 9, most, true);
            cr_assert_str_eq(got.data, cases[i].want, "case %zu, pieces of %zu: %s", i, most % 9,
                             got.data);
            buf_fini(&got);
        }
    }
}

/* Reasoning first, where the request's grammar leaves room for it. */
Test(output_forced, behind_reasoning)
{
    static const struct {
        const char *reasoning, *name;
        bool inside, cut;
        const char *text, *want;
    } cases[] = {
        {"think", NULL, true, false, "hm</think>\n\n[{\"name\": \"f\", \"parameters\": {}}]",
         "|R:hm|B0:f|A:{}|E"},
        {"think", "f", false, false, "<think>\nhm\n</think>\n\n{\"a\": 1}",
         "|R:hm|B0:f|A:{\"a\": 1}|E"},
        {"think", "f", false, false, "{\"a\": 1}", "|B0:f|A:{\"a\": 1}|E"},
        {"think", "f", true, true, "hm", "|R:hm"},
        {"think", "f", false, true, "<thi", ""},
        {"think", "f", true, true, "hm</think>\n", "|R:hm"},
        {"mistral", "f", false, false, "\1[THINK]\2hm\1[/THINK]\2{}", "|R:hm|B0:f|A:{}|E"},
        {"harmony", NULL, false, false,
         "\1<|channel|>\2analysis\1<|message|>\2hm\1<|end|><|start|>\2assistant\1<|channel|>\2"
         "final\1<|message|>\2[{\"name\": \"f\", \"parameters\": {}}]",
         "|R:hm|B0:f|A:{}|E"},
        {"harmony", "f", false, false,
         "\1<|channel|>\2final \1<|constrain|>\2json\1<|message|>\2{\"a\": 1}",
         "|B0:f|A:{\"a\": 1}|E"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct output_args args = {.forced = true,
                                   .led = true,
                                   .reasoning = output_reasoning_find(cases[i].reasoning),
                                   .inside_reasoning = cases[i].inside,
                                   .forced_name = cases[i].name,
                                   .tools = output_format_find("hermes"),
                                   .skip_special = true};
        for (size_t most = 0; most < 18; most++) {
            args.whole = most >= 9;
            struct buf got = rig_run(args, cases[i].text, most % 9, most, cases[i].cut);
            cr_assert_str_eq(got.data ? got.data : "", cases[i].want, "case %zu, pieces of %zu: %s",
                             i, most % 9, got.data);
            buf_fini(&got);
        }
    }
}

Test(output_forced, blanks_that_are_the_answers)
{
    struct output_args args = {.reasoning = output_reasoning_find("think"),
                               .inside_reasoning = true,
                               .led = true,
                               .skip_special = true};
    for (size_t most = 0; most < 9; most++) {
        args.keep_blanks = true;
        struct buf kept = rig_run(args, "a \n</think>\n b ", most, most, false);
        cr_assert_str_eq(kept.data, "|R:a|C:\n b ");
        args.keep_blanks = false;
        struct buf trimmed = rig_run(args, "a \n</think>\n b ", most, most, false);
        cr_assert_str_eq(trimmed.data, "|R:a|C:b ");
        struct output_args at_once = {
            .reasoning = args.reasoning, .led = true, .skip_special = true};
        struct buf direct = rig_run(at_once, "\n\n{} ", most, most, false);
        cr_assert_str_eq(direct.data, "|C:{} ");
        buf_fini(&kept);
        buf_fini(&trimmed);
        buf_fini(&direct);
    }
}
