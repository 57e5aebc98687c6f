/* Tokens to text: characters and stop strings split over tokens in every way. */
#include "api_rig.h"

struct outcome {
    char text[512];
    size_t len;
    int stop, tokens; /* tokens: pushed until it stopped */
};

static unsigned piece_seed; /* 0: bytes one by one; else pieces of a, b and c */

/* Pushes the bytes of `in` one by one; after each, what has come out must be whole characters and a
 * prefix of what comes at last. */
static struct outcome run(const struct tokenizer *t, const char *in, const char *const *stops,
                          struct api_text_args args)
{
    struct api_text_ref refs[8];
    size_t n = 0;
    for (; stops && stops[n]; n++)
        refs[n] = (struct api_text_ref){stops[n], strlen(stops[n])};
    args.tokenizer = t;
    args.stops = refs;
    args.n_stops = n;
    struct api_text *x = api_text_create(&args, (struct msg_ids){0});
    struct outcome o = {.stop = -1};
    struct buf out = {0};
    for (size_t i = 0, len; in[i] && o.stop < 0; i += len) {
        len = piece_seed ? 1 + (size_t)rand_r(&piece_seed) % 3 : 1;
        if (len > strlen(in + i))
            len = strlen(in + i);
        o.stop = api_text_push(x, piece_seed ? rig_piece(in + i, len) : (unsigned char)in[i], &out);
        o.tokens++;
        cr_assert(utf8_valid(out.data ? out.data : "", out.len), "half a character after %zu", i);
    }
    if (o.stop < 0)
        o.stop = api_text_finish(x, &out);
    cr_assert(out.len < sizeof o.text);
    if (out.len)
        memcpy(o.text, out.data, out.len);
    o.len = out.len;
    buf_fini(&out);
    api_text_destroy(x);
    return o;
}

struct stop_case {
    const char *in;
    const char *stops[5];
    const char *want;
    int stop, tokens; /* tokens 0: not looked at */
};

Test(api_text, stop_strings)
{
    static const struct stop_case cases[] = {
        {"hello world", {NULL}, "hello world", -1, 11},
        {"hello world", {"wor"}, "hello ", 0, 9},
        {"hello world", {"world!"}, "hello world", -1, 11},
        {"aaab", {"aab"}, "a", 0, 4},
        {"abababac", {"ababac"}, "ab", 0, 8},
        {"abcd", {"abcd", "bc"}, "a", 1, 3}, /* complete first wins */
        {"abcd", {"bcd", "abcd"}, "", 1, 4}, /* of two at once the longer */
        {"x\n\ny", {"\n\n"}, "x", 0, 3},
        {"stop", {"s"}, "", 0, 1},
        {"caf\xc3\xa9 noir", {"\xc3\xa9"}, "caf", 0, 5},
        {"\xf0\x9f\x99\x82!", {"!"}, "\xf0\x9f\x99\x82", 0, 5},
        {"no stop at the end sto", {"stop at dawn", "stop"}, "no ", 1, 7},
        {"ab", {"abc", "bcd", "b"}, "a", 2, 2},
    };
    struct tokenizer *t = rig_tokenizer();
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const struct stop_case *c = &cases[i];
        struct outcome o = run(t, c->in, c->stops, (struct api_text_args){.skip_special = true});
        cr_assert_str_eq(o.text, c->want, "case %zu", i);
        cr_assert_eq(o.stop, c->stop, "case %zu: %d", i, o.stop);
        cr_assert_eq(o.tokens, c->tokens, "case %zu: %d tokens", i, o.tokens);
    }
    tokenizer_free(t);
}

Test(api_text, included_and_minimum)
{
    struct tokenizer *t = rig_tokenizer();
    static const char *const stops[] = {"wor", NULL};
    struct outcome o = run(t, "hello world", stops, (struct api_text_args){.include_stop = true});
    cr_assert_str_eq(o.text, "hello wor");
    /* before the minimum it is text like any other, and no part of a later one */
    o = run(t, "wor world", stops, (struct api_text_args){.min_tokens = 2});
    cr_assert_str_eq(o.text, "wor ");
    o = run(t, "wor world", stops, (struct api_text_args){.min_tokens = 9});
    cr_assert_str_eq(o.text, "wor world");
    tokenizer_free(t);
}

/* Against the plain definition: the first stop string to be complete, looking byte by byte. */
Test(api_text, random_texts_against_the_definition)
{
    struct tokenizer *t = rig_tokenizer();
    unsigned seed = 7;
    for (int round = 0; round < 3000; round++) {
        char in[40] = {0}, stop_text[3][6] = {{0}};
        const char *stops[4] = {0};
        int n_stops = 1 + rand_r(&seed) % 3;
        size_t len = 1 + (size_t)(rand_r(&seed) % 30);
        for (size_t i = 0; i < len; i++)
            in[i] = "abc"[rand_r(&seed) % 3];
        for (int s = 0; s < n_stops; s++) {
            int n = 1 + rand_r(&seed) % 5;
            for (int i = 0; i < n; i++)
                stop_text[s][i] = "abc"[rand_r(&seed) % 3];
            stops[s] = stop_text[s];
        }
        size_t keep = len, best = 0;
        for (size_t end = 1; end <= len && keep == len && !best; end++) {
            for (int s = 0; s < n_stops; s++) {
                size_t n = strlen(stops[s]);
                if (n <= end && n > best && memcmp(in + end - n, stops[s], n) == 0) {
                    best = n;
                    keep = end - n;
                }
            }
        }
        piece_seed = round % 2 ? (unsigned)round : 0;
        struct outcome o = run(t, in, stops, (struct api_text_args){0});
        in[keep] = 0;
        cr_assert_str_eq(o.text, in, "round %d", round);
        cr_assert_eq(o.stop >= 0, best > 0, "round %d", round);
    }
    piece_seed = 0; /* the next test may run in this process, too */
    tokenizer_free(t);
}

Test(api_text, held_back_only_as_long_as_needed)
{
    struct tokenizer *t = rig_tokenizer();
    const struct api_text_ref stop = {"abc", 3};
    const struct api_text_args args = {.tokenizer = t, .stops = &stop, .n_stops = 1};
    struct api_text *x = api_text_create(&args, (struct msg_ids){0});
    struct buf out = {0};
    static const struct {
        char c;
        const char *after;
    } steps[] = {{'x', "x"}, {'a', "x"}, {'b', "x"}, {'a', "xab"}, {'d', "xabad"}, {'a', "xabad"}};
    for (size_t i = 0; i < sizeof steps / sizeof *steps; i++) {
        cr_assert_eq(api_text_push(x, steps[i].c, &out), -1);
        cr_assert_str_eq(out.data, steps[i].after, "step %zu", i);
    }
    cr_assert_eq(api_text_finish(x, &out), -1);
    cr_assert_str_eq(out.data, "xabada");
    buf_fini(&out);
    api_text_destroy(x);
    tokenizer_free(t);
}

Test(api_text, invalid_and_cut_characters)
{
    struct tokenizer *t = rig_tokenizer();
    struct outcome o = run(t, "a\xff\xc3", NULL, (struct api_text_args){0});
    cr_assert_str_eq(o.text, "a\xef\xbf\xbd\xef\xbf\xbd");
    o = run(t, "\xe2\x82\xac\xf0\x9f\x99\x82", NULL, (struct api_text_args){0});
    cr_assert_str_eq(o.text, "\xe2\x82\xac\xf0\x9f\x99\x82");
    static const char *const stops[] = {"\xef\xbf\xbd", NULL};
    o = run(t, "a\xff b", stops, (struct api_text_args){0});
    cr_assert_str_eq(o.text, "a");
    tokenizer_free(t);
}

/* A special token is told apart, and stops what only all of its text asks for. */
Test(api_text, special_tokens)
{
    static const struct {
        const char *stops[3];
        bool include;
        int32_t min;
        int stop;
        const char *want;
        size_t special;
    } cases[] = {
        {{NULL}, false, 0, -1, "a<|user|>", 8},
        {{"<|user|>"}, false, 0, 0, "a", 0},
        {{"a<", "<|user|>"}, true, 0, 1, "a<|user|>", 8},
        {{"<|user|>"}, false, 2, -1, "a<|user|>", 8},
        {{"user", "<|user|>b"}, false, 0, -1, "a<|user|>", 8},
    };
    struct tokenizer *t = rig_tokenizer();
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct api_text_ref stops[2] = {{0}};
        size_t n = 0;
        for (; cases[i].stops[n]; n++)
            stops[n] = (struct api_text_ref){cases[i].stops[n], strlen(cases[i].stops[n])};
        struct api_text *x =
            api_text_create(&(struct api_text_args){.tokenizer = t,
                                                    .stops = stops,
                                                    .n_stops = n,
                                                    .include_stop = cases[i].include,
                                                    .skip_special = true,
                                                    .tell_special = true,
                                                    .min_tokens = cases[i].min},
                            (struct msg_ids){0});
        struct buf out = {0};
        cr_assert_eq(api_text_push(x, 'a', &out), -1);
        cr_assert_eq(api_text_push(x, 258, &out), cases[i].stop, "case %zu", i);
        cr_assert_eq(api_text_special_bytes(x), cases[i].special, "case %zu", i);
        cr_assert_eq(out.len, strlen(cases[i].want), "case %zu", i);
        cr_assert(memcmp(out.data, cases[i].want, out.len) == 0, "case %zu", i);
        buf_fini(&out);
        api_text_destroy(x);
    }
    tokenizer_free(t);
}
