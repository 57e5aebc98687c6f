/* Answers that are calls and nothing else. */
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
