#include <criterion/criterion.h>

#include <string.h>

#include "formats/name_pattern.h"

Test(name_pattern, matches_as_configs_mean_it)
{
    static const struct {
        const char *pattern, *name;
        bool want;
    } cases[] = {
        {"lm_head", "lm_head", true},
        {"lm_head", "model.lm_head", true},
        {"lm_head", "lm_head2", false},
        {"head", "lm_head", false},
        {"model.layers.1", "model.layers.1.mlp", true},
        {"model.layers.1", "model.layers.11.mlp", false},
        {"", "x", false},
        {"re:.*lm_head", "model.lm_head.x", true},
        {"re:lm_head", "model.lm_head", false},
        {"re:.*mlp\\.gate$", "model.layers.3.mlp.gate", true},
        {"re:.*mlp\\.gate$", "model.layers.3.mlp.gate_proj", false},
        {"re:model\\.layers\\.\\d+\\.mlp\\.experts.*", "model.layers.12.mlp.experts.3.up", true},
        {"re:model\\.layers\\.\\d+\\.mlp", "model.layers.x.mlp", false},
        {"re:.*self_attn.(q|k|v)_proj$", "a.self_attn.v_proj", true},
        {"re:.*self_attn.(q|k|v)_proj$", "a.self_attn.o_proj", false},
        {"re:^(?!.*visual).*proj", "model.q_proj", true},
        {"re:^(?!.*visual).*proj", "visual.q_proj", false},
        {"re:(?:a|bc){2,3}x", "abcax", true},
        {"re:(?:a|bc){2,3}x", "ax", false},
        {"re:[^a-c.]+\\.w", "xyz.w", true},
        {"re:[^a-c.]+\\.w", "xbz.w", false},
        {"re:layers\\.(0|1|2[0-9])\\.", "layers.27.x", true},
        {"re:a+?b", "aaab", true},
        {"re:a?a?a?aaa", "aaa", true},
        {"re:\\bx\\b", "x.y", true},
        {"re:\\bx\\b", "xy", false},
        {"re:a|b", "b", true},
        {"re:(a*)*b", "aaaa", false},
        {"re:()*x", "x", true},
        {"re:", "anything", true},
        {"re:[]a]+$", "]a]", true},
        {"re:a{2}$", "aa", true},
        {"re:a{2,}$", "aaaa", true},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct error err = {0};
        cr_assert_eq(name_pattern_check(cases[i].pattern, &err), ST_OK, "%s", err.text);
        cr_assert_eq(name_matches(cases[i].pattern, cases[i].name), cases[i].want, "%s on %s",
                     cases[i].pattern, cases[i].name);
    }
    cr_assert(name_matches_whole("a.b", "a.b") && !name_matches_whole("a", "a.b"));
    cr_assert(!name_matches_whole("b", "a.b") && name_matches_whole("re:a", "a.b"));
}

Test(name_pattern, refuses_other_dialects)
{
    static const char *const cases[] = {
        "re:(",       "re:)",     "re:a)",      "re:[a",  "re:*a",    "re:a**",
        "re:(?<n>a)", "re:(?i)a", "re:\\1",     "re:a\\", "re:a{",    "re:a{x}",
        "re:a{3,2}",  "re:a{,2}", "re:a{9999}", "re:(?",  "re:\\p{L}"};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct error err = {0};
        cr_assert_eq(name_pattern_check(cases[i], &err), ST_UNSUPPORTED, "%s", cases[i]);
    }
    char text[2000] = "re:";
    memset(text + 3, 'a', 1990);
    cr_assert_eq(name_pattern_check(text, NULL), ST_UNSUPPORTED);
}

/* Patterns that would take a plain backtracker forever end soon. */
Test(name_pattern, bounded, .timeout = 10)
{
    char name[300];
    memset(name, 'a', sizeof name - 1);
    name[sizeof name - 1] = 0;
    cr_assert_not(name_matches("re:(a+)+$x", name));
    cr_assert_not(name_matches("re:(a|a|a|aa)*b", name));
    cr_assert_not(name_matches("re:((a*)*)*b", name));
    cr_assert_not(name_matches("re:(((((a{1,900}){1,900}){1,900}){1,900}){1,900})b", name));
}
