/* Every limit of the messages, and bytes that are wrong in every way. */
#include <criterion/criterion.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/rng.h"
#include "codec_samples.h"

static enum status start_status(const struct msg_start *m)
{
    struct buf b = {0};
    struct codec_arena a = {0};
    struct msg_start got;
    struct msg_decode_control control;
    bool is_start;
    codec_put_start(&b, m);
    cr_assert_not(b.failed);
    enum status st = codec_get_decode_request(BYTES(b), &a, &is_start, &got, &control);
    codec_arena_fini(&a);
    buf_fini(&b);
    return st;
}

#define REFUSED(change)                                                                            \
    do {                                                                                           \
        struct msg_start m = a_start();                                                            \
        change;                                                                                    \
        cr_assert_eq(start_status(&m), ST_PROTOCOL, #change);                                      \
    } while (0)

Test(codec, limits_of_start)
{
    static int32_t many[MSG_STOP_IDS_MAX + 1];
    static struct msg_bias biases[MSG_BIAS_MAX + 1];
    static char grammar[MSG_GRAMMAR_BYTES_MAX + 1];
    static char longest[MSG_REQUEST_ID_MAX + 2];
    static const int32_t negative[] = {4, -1};
    memset(longest, 'x', MSG_REQUEST_ID_MAX + 1);
    struct msg_start ok = a_start();
    cr_assert_eq(start_status(&ok), ST_OK);
    ok.sampling.stop_ids = (struct msg_ids){many, MSG_STOP_IDS_MAX};
    ok.sampling.bias = biases;
    ok.sampling.n_bias = MSG_BIAS_MAX;
    ok.request_id = longest + 1;
    cr_assert_eq(start_status(&ok), ST_OK);
    REFUSED(m.n = 0);
    REFUSED(m.n = MSG_CHOICES_MAX + 1; m.emitted = NULL; m.finished = NULL);
    REFUSED(m.request_id = longest);
    REFUSED(m.request_id = "\xff");
    REFUSED(m.cache_salt = "\xed\xa0\x80"); /* a surrogate */
    REFUSED(m.prompt = ((struct msg_ids){negative, 2}));
    REFUSED(m.deadline_ms = -1);
    REFUSED(m.credits = -1);
    REFUSED(m.sampling.stop_ids = ((struct msg_ids){many, MSG_STOP_IDS_MAX + 1}));
    REFUSED(m.sampling.bias = biases; m.sampling.n_bias = MSG_BIAS_MAX + 1);
    REFUSED(m.sampling.grammar.kind = MSG_GRAMMAR_KINDS);
    REFUSED(m.sampling.grammar = ((struct msg_grammar){.text = "x", .len = 1}));
    REFUSED(m.sampling.grammar =
                ((struct msg_grammar){MSG_GRAMMAR_GBNF, grammar, MSG_GRAMMAR_BYTES_MAX + 1, 0}));
    REFUSED(m.sampling.grammar = ((struct msg_grammar){MSG_GRAMMAR_GBNF, grammar, 3, 4}));
    REFUSED(m.sampling.grammar = ((struct msg_grammar){
                MSG_GRAMMAR_GBNF, grammar, MSG_GRAMMAR_LEAD_MAX + 1, MSG_GRAMMAR_LEAD_MAX + 1}));
    REFUSED(m.sampling.logprobs = 21);
    REFUSED(m.sampling.logprobs = -3);
    REFUSED(m.sampling.temperature = NAN);
    REFUSED(m.sampling.top_p = INFINITY);
    REFUSED(m.sampling.min_p = -INFINITY);
    REFUSED(m.sampling.repetition_penalty = NAN);
    REFUSED(m.sampling.presence_penalty = NAN);
    REFUSED(m.sampling.frequency_penalty = INFINITY);
    REFUSED(m.sampling.bias = (&(struct msg_bias){1, NAN}); m.sampling.n_bias = 1);
    REFUSED(m.sampling.bias = (&(struct msg_bias){-1, 1}); m.sampling.n_bias = 1);
    REFUSED(m.sampling.max_tokens = -1);
    REFUSED(m.sampling.top_k = -1);
    REFUSED(m.scoring.top = MSG_LOGPROBS_MAX + 1);
    REFUSED(m.scoring.begin = MSG_IDS_MAX);
}

Test(codec, limits_of_events)
{
    struct codec_arena a = {0};
    struct msg_decode_event got;
    static struct msg_rank_address ranks[MSG_RANKS_MAX + 1];
    static struct msg_token tokens[MSG_TOKENS_MAX + 1];
    static struct msg_logprob top[MSG_LOGPROBS_MAX + 1];
    static uint8_t address[MSG_ADDRESS_MAX + 1];
    struct msg_decode_event accepted = {.kind = MSG_D_ACCEPTED,
                                        .accepted = {.ranks = ranks, .n_ranks = MSG_RANKS_MAX}};
    cr_assert_eq(event_round(&accepted, &a, &got), ST_OK);
    codec_arena_fini(&a);
    ranks[0].ucx = address;
    ranks[0].ucx_bytes = MSG_ADDRESS_MAX + 1;
    cr_assert_eq(event_round(&accepted, &a, &got), ST_PROTOCOL);
    codec_arena_fini(&a);
    ranks[0] = (struct msg_rank_address){.head_begin = 2, .head_end = 1};
    cr_assert_eq(event_round(&accepted, &a, &got), ST_PROTOCOL);
    codec_arena_fini(&a);
    ranks[0] = (struct msg_rank_address){0};
    accepted.accepted.n_ranks++;
    cr_assert_eq(event_round(&accepted, &a, &got), ST_PROTOCOL);
    codec_arena_fini(&a);
    struct msg_decode_event said = {
        .kind = MSG_D_TOKENS, .tokens = tokens, .n_tokens = MSG_TOKENS_MAX};
    for (int i = 0; i < MSG_TOKENS_MAX; i++)
        tokens[i] = (struct msg_token){.top = top, .n_top = MSG_LOGPROBS_MAX, .position = i};
    cr_assert_eq(event_round(&said, &a, &got), ST_OK);
    codec_arena_fini(&a);
    tokens[0].n_top++;
    cr_assert_eq(event_round(&said, &a, &got), ST_PROTOCOL);
    codec_arena_fini(&a);
    tokens[0] = (struct msg_token){.choice = MSG_CHOICES_MAX};
    cr_assert_eq(event_round(&said, &a, &got), ST_PROTOCOL);
    codec_arena_fini(&a);
    tokens[0] = (struct msg_token){0};
    said.n_tokens++;
    cr_assert_eq(event_round(&said, &a, &got), ST_PROTOCOL);
    codec_arena_fini(&a);
    struct msg_score scores[] = {{1, 0, 1, 0, NULL, 0}, {2, 0, 1, 0, top, MSG_LOGPROBS_MAX}};
    struct msg_decode_event scored = {.kind = MSG_D_SCORES, .scores = scores, .n_scores = 2};
    cr_assert_eq(event_round(&scored, &a, &got), ST_OK);
    codec_arena_fini(&a);
#define WRONG_SCORE(field, value)                                                                  \
    do {                                                                                           \
        struct msg_score was = scores[1];                                                          \
        scores[1].field = (value);                                                                 \
        cr_assert_eq(event_round(&scored, &a, &got), ST_PROTOCOL, "%s", #field);                   \
        codec_arena_fini(&a);                                                                      \
        scores[1] = was;                                                                           \
    } while (0)
    WRONG_SCORE(position, 3);
    WRONG_SCORE(position, 1);
    WRONG_SCORE(id, -1);
    WRONG_SCORE(rank, 0);
    WRONG_SCORE(n_top, MSG_LOGPROBS_MAX + 1);
    scores[0].position = 0;
    cr_assert_eq(event_round(&scored, &a, &got), ST_PROTOCOL);
    codec_arena_fini(&a);
    struct msg_decode_event finish = {.kind = MSG_D_FINISH, .finish = {0, 3, 0}};
    cr_assert_eq(event_round(&finish, &a, &got), ST_PROTOCOL);
    codec_arena_fini(&a);
}

/* Tries every decoder; what they say does not matter here, the sanitizers do. */
static int try_all(const uint8_t *data, size_t len)
{
    struct codec_arena a = {0};
    union {
        struct msg_start start;
        struct msg_decode_event decode_event;
        struct msg_prefill prefill;
        struct msg_prefill_event prefill_event;
        struct msg_status status;
        struct msg_generate generate;
        struct msg_generate_event generate_event;
    } m;
    struct msg_decode_control control;
    enum msg_admin_verb verb;
    const char *model, *text;
    bool flag;
    int ok = 0;
    ok += codec_get_decode_request(data, len, &a, &flag, &m.start, &control) == ST_OK;
    ok += codec_get_decode_event(data, len, &a, &m.decode_event) == ST_OK;
    ok += codec_get_prefill(data, len, &a, &m.prefill) == ST_OK;
    ok += codec_get_prefill_event(data, len, &a, &m.prefill_event) == ST_OK;
    ok += codec_get_admin(data, len, &verb) == ST_OK;
    ok += codec_get_status(data, len, &a, &m.status) == ST_OK;
    ok += codec_get_generate(data, len, &a, &m.generate) == ST_OK;
    ok += codec_get_generate_event(data, len, &a, &m.generate_event) == ST_OK;
    ok += codec_get_tokenize(data, len, &a, &model, &text, &flag) == ST_OK;
    codec_arena_fini(&a);
    return ok;
}

Test(codec, truncated_and_damaged, .timeout = 60)
{
    struct buf b = {0};
    struct msg_start m = a_start();
    struct rng rng = rng_seed(7);
    codec_put_start(&b, &m);
    for (size_t len = 0; len < b.len; len++) {
        uint8_t *cut = malloc(len + 1); /* so that reading on is noticed */
        memcpy(cut, b.data, len);
        uint8_t *exact = realloc(cut, len > 0 ? len : 1);
        struct codec_arena a = {0};
        struct msg_start start;
        struct msg_decode_control control;
        bool is_start;
        cr_assert_eq(codec_get_decode_request(exact, len, &a, &is_start, &start, &control),
                     ST_PROTOCOL, "cut to %zu of %zu", len, b.len);
        codec_arena_fini(&a);
        free(exact);
    }
    for (int i = 0; i < 20000; i++) {
        uint8_t damaged[512];
        size_t len = b.len < sizeof damaged ? b.len : sizeof damaged;
        memcpy(damaged, b.data, len);
        for (int k = 0; k < 3; k++)
            damaged[rng_below(&rng, len)] = (uint8_t)rng_next(&rng);
        try_all(damaged, len);
    }
    for (int i = 0; i < 20000; i++) {
        uint8_t noise[64];
        size_t len = rng_below(&rng, sizeof noise);
        for (size_t k = 0; k < len; k++)
            noise[k] = (uint8_t)rng_next(&rng);
        try_all(noise, len);
    }
    buf_fini(&b);
}

/* Two bytes of input can ask for a hundred of memory each: refused before it adds up. */
Test(codec, amplification_is_bounded, .timeout = 60)
{
    size_t len = (size_t)4 << 20;
    uint8_t *data = malloc(len);
    struct codec_arena a = {0};
    struct msg_prefill_event m;
    for (size_t i = 0; i < len; i += 2) {
        data[i] = 0x0a; /* field 1, an empty Token */
        data[i + 1] = 0;
    }
    cr_assert_eq(codec_get_prefill_event(data, len, &a, &m), ST_PROTOCOL);
    codec_arena_fini(&a);
    free(data);
}

Test(codec, strings_with_zeros_are_refused)
{
    static const uint8_t zero[] = "\x1a\x03"
                                  "a\0b",
                         fine[] = "\x1a\x03"
                                  "a b";
    struct codec_arena a = {0};
    struct msg_generate m;
    cr_assert_eq(codec_get_generate(fine, 5, &a, &m), ST_OK);
    cr_assert_eq(codec_get_generate(zero, 5, &a, &m), ST_PROTOCOL);
    codec_arena_fini(&a);
}

/* A million ids: the longest prompts pass at the speed of a copy. */
Test(codec, long_prompts, .timeout = 60)
{
    uint32_t n = 1 << 20;
    int32_t *ids = malloc(n * sizeof *ids);
    struct msg_start m = a_start();
    for (uint32_t i = 0; i < n; i++)
        ids[i] = (int32_t)i;
    m.prompt = (struct msg_ids){ids, n};
    cr_assert_eq(start_status(&m), ST_OK);
    free(ids);
}
