/* Every message to bytes and back. */
#include <criterion/criterion.h>
#include <math.h>
#include <string.h>

#include "codec_samples.h"

static void same_ids(struct msg_ids a, struct msg_ids b)
{
    cr_assert_eq(a.n, b.n);
    cr_assert(a.n == 0 || memcmp(a.v, b.v, a.n * 4) == 0);
}

static void same_grammar(const struct msg_grammar *a, const struct msg_grammar *b)
{
    cr_assert_eq(a->kind, b->kind);
    cr_assert_eq(a->len, b->len);
    cr_assert_eq(a->lead, b->lead);
    cr_assert(a->len == 0 || memcmp(a->text, b->text, a->len) == 0);
}

static void same_sampling(const struct msg_sampling *a, const struct msg_sampling *b)
{
    struct msg_sampling x = *a, y = *b;
    same_ids(x.stop_ids, y.stop_ids);
    cr_assert_eq(x.n_bias, y.n_bias);
    cr_assert(x.n_bias == 0 || memcmp(x.bias, y.bias, x.n_bias * sizeof *x.bias) == 0);
    cr_assert_eq(x.temperature, y.temperature);
    cr_assert_eq(x.top_p, y.top_p);
    cr_assert_eq(x.min_p, y.min_p);
    cr_assert_eq(x.top_k, y.top_k);
    cr_assert_eq(x.repetition_penalty, y.repetition_penalty);
    cr_assert_eq(x.presence_penalty, y.presence_penalty);
    cr_assert_eq(x.frequency_penalty, y.frequency_penalty);
    cr_assert_eq(x.seed, y.seed);
    cr_assert_eq(x.logprobs, y.logprobs);
    cr_assert_eq(x.max_tokens, y.max_tokens);
    cr_assert_eq(x.min_tokens, y.min_tokens);
    cr_assert_eq(x.ignore_eos, y.ignore_eos);
    same_grammar(&x.grammar, &y.grammar);
}

static void same_ranks(const struct msg_rank_address *v, uint32_t n)
{
    cr_assert_eq(n, 2);
    for (int i = 0; i < 2; i++) {
        cr_assert_eq(v[i].rank, some_ranks[i].rank);
        cr_assert_eq(v[i].head_begin, some_ranks[i].head_begin);
        cr_assert_eq(v[i].head_end, some_ranks[i].head_end);
        cr_assert_str_eq(v[i].host, some_ranks[i].host);
        cr_assert_str_eq(v[i].shm, some_ranks[i].shm);
        cr_assert_eq(v[i].ucx_bytes, some_ranks[i].ucx_bytes);
    }
    cr_assert_eq(memcmp(v[0].ucx, some_address, 3), 0);
}

Test(codec, start)
{
    struct buf b = {0};
    struct codec_arena a = {0};
    struct msg_start m = a_start(), got;
    struct msg_decode_control control;
    bool is_start = false;
    codec_put_start(&b, &m);
    cr_assert_eq(codec_get_decode_request(BYTES(b), &a, &is_start, &got, &control), ST_OK);
    cr_assert(is_start);
    cr_assert_str_eq(got.request_id, "r-1");
    cr_assert_str_eq(got.cache_salt, m.cache_salt);
    cr_assert_eq(got.n, 3);
    same_ids(got.prompt, m.prompt);
    for (int i = 0; i < 3; i++) {
        same_ids(got.emitted[i], m.emitted[i]);
        cr_assert_eq(got.finished[i], m.finished[i]);
    }
    same_sampling(&got.sampling, &m.sampling);
    cr_assert_eq(got.deadline_ms, m.deadline_ms);
    cr_assert_eq(got.credits, 64);
    cr_assert(got.local_prefill);
    cr_assert(got.scoring.begin == 3 && got.scoring.top == 20);
    cr_assert_eq(got.fingerprint[0], 1);
    cr_assert_eq(got.fingerprint[1], UINT64_MAX);
    codec_arena_fini(&a);
    buf_clear(&b);
    m.emitted = NULL; /* a fresh request */
    m.finished = NULL;
    codec_put_start(&b, &m);
    cr_assert_eq(codec_get_decode_request(BYTES(b), &a, &is_start, &got, &control), ST_OK);
    for (int i = 0; i < 3; i++)
        cr_assert(got.emitted[i].n == 0 && !got.finished[i]);
    codec_arena_fini(&a);
    buf_fini(&b);
}

Test(codec, control)
{
    struct buf b = {0};
    struct codec_arena a = {0};
    struct msg_decode_control m = {
        .credit = 1 << 20, .stop_choice_plus1 = 128, .prefill_here = true};
    struct msg_decode_control got;
    struct msg_start start;
    bool is_start = true;
    codec_put_control(&b, &m);
    cr_assert_eq(codec_get_decode_request(BYTES(b), &a, &is_start, &start, &got), ST_OK);
    cr_assert_not(is_start);
    cr_assert_eq(got.credit, 1 << 20);
    cr_assert_eq(got.stop_choice_plus1, 128);
    cr_assert(got.prefill_here);
    codec_arena_fini(&a);
    buf_clear(&b);
    m.stop_choice_plus1 = 129;
    codec_put_control(&b, &m);
    cr_assert_eq(codec_get_decode_request(BYTES(b), &a, &is_start, &start, &got), ST_PROTOCOL);
    codec_arena_fini(&a);
    buf_fini(&b);
}

Test(codec, decode_events)
{
    struct codec_arena a = {0};
    struct msg_decode_event got;
    struct msg_decode_event accepted = {
        .kind = MSG_D_ACCEPTED,
        .accepted = {
            .ticket = {{3, UINT64_MAX}}, .have_tokens = 7, .ranks = some_ranks, .n_ranks = 2}};
    cr_assert_eq(event_round(&accepted, &a, &got), ST_OK);
    cr_assert_eq(got.kind, MSG_D_ACCEPTED);
    cr_assert(got.accepted.ticket.w[0] == 3 && got.accepted.ticket.w[1] == UINT64_MAX);
    cr_assert_eq(got.accepted.have_tokens, 7);
    same_ranks(got.accepted.ranks, got.accepted.n_ranks);
    codec_arena_fini(&a);
    static const enum status whys[] = {ST_BUSY, ST_NEVER_FITS, ST_INVALID, ST_INCOMPATIBLE};
    for (int i = 0; i < 4; i++) {
        struct msg_decode_event no = {.kind = MSG_D_REJECTED, .rejected = whys[i], .reason = "why"};
        cr_assert_eq(event_round(&no, &a, &got), ST_OK);
        cr_assert(got.kind == MSG_D_REJECTED && got.rejected == whys[i]);
        cr_assert_str_eq(got.reason, "why");
        codec_arena_fini(&a);
    }
    struct msg_token tokens[] = {{2, 5, 77, -0.25f, some_top, 2}, {0, 0, 0, 0, NULL, 0}};
    struct msg_decode_event said = {.kind = MSG_D_TOKENS, .tokens = tokens, .n_tokens = 2};
    cr_assert_eq(event_round(&said, &a, &got), ST_OK);
    cr_assert(got.kind == MSG_D_TOKENS && got.n_tokens == 2);
    cr_assert(got.tokens[0].choice == 2 && got.tokens[0].position == 5 && got.tokens[0].id == 77);
    cr_assert(got.tokens[0].logprob == -0.25f && got.tokens[0].n_top == 2);
    cr_assert(got.tokens[0].top[1].id == 10 && got.tokens[0].top[1].logprob == -2.5f);
    codec_arena_fini(&a);
    struct msg_decode_event scores = {.kind = MSG_D_SCORES, .scores = some_scores, .n_scores = 3};
    cr_assert_eq(event_round(&scores, &a, &got), ST_OK);
    cr_assert_eq(got.kind, MSG_D_SCORES);
    same_scores(got.scores, got.n_scores);
    codec_arena_fini(&a);
    struct msg_decode_event finish = {.kind = MSG_D_FINISH, .finish = {1, MSG_FINISH_LENGTH, -1}};
    cr_assert_eq(event_round(&finish, &a, &got), ST_OK);
    cr_assert(got.kind == MSG_D_FINISH && got.finish.choice == 1 && got.finish.stop_id == -1);
    cr_assert_eq(got.finish.reason, MSG_FINISH_LENGTH);
    codec_arena_fini(&a);
    struct msg_decode_event done = {
        .kind = MSG_D_DONE, .usage = {10, 3, 20}, .kv_wait_us = 99, .decode_us = 1000};
    cr_assert_eq(event_round(&done, &a, &got), ST_OK);
    cr_assert(got.kind == MSG_D_DONE && got.usage.prompt_tokens == 10);
    cr_assert(got.usage.cached_tokens == 3 && got.usage.completion_tokens == 20);
    cr_assert(got.kv_wait_us == 99 && got.decode_us == 1000);
    codec_arena_fini(&a);
}

Test(codec, prefill)
{
    struct buf b = {0};
    struct codec_arena a = {0};
    struct msg_prefill got, m = {
                                .request_id = "r",
                                .prompt = {some_ids, 4},
                                .prompt_tokens = 3,
                                .n = 2,
                                .want_first = true,
                                .sampling = a_sampling(),
                                .cache_salt = "",
                                .ticket = {{8, 9}},
                                .have_tokens = 2,
                                .ranks = some_ranks,
                                .n_ranks = 2,
                                .deadline_ms = 5,
                                .fingerprint = {11, 12},
                                .scoring = {.begin = 1},
                            };
    codec_put_prefill(&b, &m);
    cr_assert_eq(codec_get_prefill(BYTES(b), &a, &got), ST_OK);
    same_ids(got.prompt, m.prompt);
    same_sampling(&got.sampling, &m.sampling);
    same_ranks(got.ranks, got.n_ranks);
    cr_assert(got.prompt_tokens == 3 && got.n == 2 && got.want_first && got.have_tokens == 2);
    cr_assert(got.ticket.w[0] == 8 && got.ticket.w[1] == 9 && got.deadline_ms == 5);
    cr_assert(got.fingerprint[0] == 11 && got.fingerprint[1] == 12);
    cr_assert(got.scoring.begin == 1 && got.scoring.top == 0);
    codec_arena_fini(&a);
    buf_clear(&b);
    m.prompt_tokens = 5; /* more than there are */
    codec_put_prefill(&b, &m);
    cr_assert_eq(codec_get_prefill(BYTES(b), &a, &got), ST_PROTOCOL);
    codec_arena_fini(&a);
    buf_clear(&b);
    struct msg_token first[] = {{0, 0, 5, -1, some_top, 1}, {1, 0, 6, -1, NULL, 0}};
    struct msg_prefill_event e, event = {first, 2, 16, 100, 200, some_scores, 3};
    codec_put_prefill_event(&b, &event);
    cr_assert_eq(codec_get_prefill_event(BYTES(b), &a, &e), ST_OK);
    cr_assert(e.n_first == 2 && e.first[1].id == 6 && e.first[0].top[0].id == 9);
    cr_assert(e.cached_tokens == 16 && e.queue_us == 100 && e.compute_us == 200);
    same_scores(e.scores, e.n_scores);
    codec_arena_fini(&a);
    buf_fini(&b);
}

Test(codec, admin)
{
    struct buf b = {0};
    struct codec_arena a = {0};
    enum msg_admin_verb verb = 0;
    codec_put_admin(&b, MSG_ADMIN_DRAIN);
    cr_assert_eq(codec_get_admin(BYTES(b), &verb), ST_OK);
    cr_assert_eq(verb, MSG_ADMIN_DRAIN);
    cr_assert_eq(codec_get_admin((const uint8_t *)"", 0, &verb), ST_PROTOCOL);
    buf_clear(&b);
    struct msg_status got, m = {
                               .name = "d0",
                               .role = "decode",
                               .model = "tiny",
                               .fingerprint = {1, 2},
                               .boot = 3,
                               .wire_min = 1,
                               .wire_max = 2,
                               .draining = true,
                               .ready = true,
                               .max_context = 2048,
                               .vocab = 4096,
                               .running = 5,
                               .waiting = 6,
                               .waiting_tokens = 7,
                               .slots = 8,
                               .blocks = {28, 1, 2, 3, 4, 5, 13},
                               .block_tokens = 16,
                               .room_tokens = 512,
                               .prefill_ns_per_token = 9,
                               .decode_ns_per_step = 10,
                               .http = "127.0.0.1:9",
                           };
    codec_put_status(&b, &m);
    cr_assert_eq(codec_get_status(BYTES(b), &a, &got), ST_OK);
    cr_assert_str_eq(got.name, "d0");
    cr_assert_str_eq(got.role, "decode");
    cr_assert_str_eq(got.model, "tiny");
    cr_assert_str_eq(got.http, "127.0.0.1:9");
    cr_assert_eq(memcmp(&got.blocks, &m.blocks, sizeof m.blocks), 0);
    cr_assert(got.boot == 3 && got.wire_min == 1 && got.wire_max == 2 && got.draining && got.ready);
    cr_assert(got.max_context == 2048 && got.vocab == 4096 && got.running == 5 && got.waiting == 6);
    cr_assert(got.waiting_tokens == 7 && got.slots == 8 && got.block_tokens == 16);
    cr_assert_eq(got.room_tokens, 512);
    cr_assert(got.prefill_ns_per_token == 9 && got.decode_ns_per_step == 10);
    cr_assert(got.fingerprint[0] == 1 && got.fingerprint[1] == 2);
    codec_arena_fini(&a);
    buf_fini(&b);
}

Test(codec, generate)
{
    static const char *const stops[] = {"\n\n", "\xe2\x82\xac"};
    struct buf b = {0};
    struct codec_arena a = {0};
    struct msg_generate got, m = {
                                 .model = "tiny",
                                 .request_id = "id",
                                 .text = "h\xc3\xa9llo",
                                 .sampling = a_sampling(),
                                 .has_seed = true,
                                 .has_temperature = true,
                                 .has_top_p = true,
                                 .has_top_k = true,
                                 .has_min_p = true,
                                 .has_repetition_penalty = true,
                                 .n = 4,
                                 .stop = stops,
                                 .n_stop = 2,
                                 .cache_salt = "z",
                                 .add_special = false,
                             };
    codec_put_generate(&b, &m);
    cr_assert_eq(codec_get_generate(BYTES(b), &a, &got), ST_OK);
    cr_assert_str_eq(got.text, m.text);
    cr_assert_str_eq(got.model, "tiny");
    cr_assert_str_eq(got.stop[1], stops[1]);
    same_sampling(&got.sampling, &m.sampling);
    cr_assert(got.has_seed && got.has_temperature && got.has_top_p && got.has_top_k);
    cr_assert(got.has_min_p && got.has_repetition_penalty && got.n == 4 && got.n_stop == 2);
    cr_assert_not(got.add_special);
    codec_arena_fini(&a);
    buf_clear(&b);
    struct msg_generate ids = {.ids = {some_ids, 4}, .sampling = {.logprobs = -1}};
    codec_put_generate(&b, &ids);
    cr_assert_eq(codec_get_generate(BYTES(b), &a, &got), ST_OK);
    same_ids(got.ids, ids.ids);
    cr_assert_null(got.text);
    cr_assert_eq(got.n, 1);
    cr_assert_not(got.has_temperature);
    cr_assert_eq(got.sampling.logprobs, -1);
    codec_arena_fini(&a);
    static const struct msg_grammar grammars[] = {{MSG_GRAMMAR_JSON_OBJECT, NULL, 0, 0},
                                                  {MSG_GRAMMAR_JSON_SCHEMA, "{}", 2, 0},
                                                  {MSG_GRAMMAR_GBNF, "root ::= \"a\"", 12, 0},
                                                  {MSG_GRAMMAR_CHOICE, "[\"a\",\"b\\n\"]", 11, 0}};
    for (size_t i = 0; i < sizeof grammars / sizeof *grammars; i++) {
        buf_clear(&b);
        ids.sampling.grammar = grammars[i];
        codec_put_generate(&b, &ids);
        cr_assert_eq(codec_get_generate(BYTES(b), &a, &got), ST_OK);
        same_grammar(&got.sampling.grammar, &grammars[i]);
        codec_arena_fini(&a);
    }
    /* an empty text is one */
    buf_clear(&b);
    codec_put_generate(&b, &(struct msg_generate){.text = "", .sampling = {.logprobs = -1}});
    cr_assert_eq(codec_get_generate(BYTES(b), &a, &got), ST_OK);
    cr_assert(got.text && !got.text[0]);
    codec_arena_fini(&a);
    /* the empty message: every default */
    cr_assert_eq(codec_get_generate((const uint8_t *)"", 0, &a, &got), ST_OK);
    cr_assert(got.n == 1 && got.add_special && got.sampling.logprobs == -1 && !got.has_seed);
    cr_assert(got.sampling.temperature == 1 && got.sampling.top_p == 1 && !got.text);
    codec_arena_fini(&a);
    buf_fini(&b);
}

Test(codec, generate_names_what_is_wrong)
{
    static char long_name[5000];
    memset(long_name, 'a', sizeof long_name - 1);
    const struct {
        const char *field;
        struct msg_generate m;
    } cases[] = {
        {"n", {.n = MSG_CHOICES_MAX + 1}},
        {"model", {.model = long_name}},
        {"request_id", {.request_id = long_name}},
        {"temperature", {.has_temperature = true, .sampling = {.temperature = NAN}}},
        {"presence_penalty", {.sampling = {.presence_penalty = INFINITY}}},
        {"logprobs", {.sampling = {.logprobs = MSG_LOGPROBS_MAX + 1}}},
        {"max_tokens", {.sampling = {.max_tokens = INT32_MIN}}},
    };
    struct codec_arena a = {0};
    struct msg_generate got;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct buf b = {0};
        codec_put_generate(&b, &cases[i].m);
        cr_assert_eq(codec_get_generate(BYTES(b), &a, &got), ST_PROTOCOL, "%s", cases[i].field);
        cr_assert_not_null(got.wrong, "%s", cases[i].field);
        cr_assert_str_eq(got.wrong, cases[i].field);
        codec_arena_fini(&a);
        buf_fini(&b);
    }
    cr_assert_eq(codec_get_generate((const uint8_t *)"\xff", 1, &a, &got), ST_PROTOCOL);
    cr_assert_null(got.wrong);
    codec_arena_fini(&a);
}

Test(codec, generate_events)
{
    struct buf b = {0};
    struct codec_arena a = {0};
    struct msg_token tokens[] = {{3, 5, 77, -0.25f, some_top, 2}, {3, 6, 78, -1, NULL, 0}};
    struct msg_generate_event got, m = {
                                       .choice = 3,
                                       .text = "\xf0\x9f\x98\x80",
                                       .ids = {some_ids, 2},
                                       .tokens = tokens,
                                       .n_tokens = 2,
                                       .prompt = some_scores,
                                       .n_prompt = 3,
                                       .finish_reason = MSG_FINISH_STOP,
                                       .has_usage = true,
                                       .usage = {1, 2, 3},
                                   };
    codec_put_generate_event(&b, &m);
    cr_assert_eq(codec_get_generate_event(BYTES(b), &a, &got), ST_OK);
    cr_assert_str_eq(got.text, m.text);
    same_ids(got.ids, m.ids);
    cr_assert(got.choice == 3 && got.finish_reason == MSG_FINISH_STOP && got.has_usage);
    cr_assert(got.usage.prompt_tokens == 1 && got.usage.completion_tokens == 3);
    cr_assert(got.n_tokens == 2 && got.tokens[0].top[1].id == 10 && got.tokens[1].position == 6);
    cr_assert_eq(got.tokens[0].choice, 3);
    same_scores(got.prompt, got.n_prompt);
    codec_arena_fini(&a);
    buf_fini(&b);
}

Test(codec, tokenize_and_models)
{
    /* model "m", text "ab", add_special_tokens false */
    static const uint8_t request[] = "\x0a\x01m\x12\x02"
                                     "ab\x18\x00";
    static const char *const names[] = {"one", "two"};
    struct codec_arena a = {0};
    struct buf b = {0};
    const char *model, *text;
    bool add_special = true;
    cr_assert_eq(codec_get_tokenize(request, sizeof request - 1, &a, &model, &text, &add_special),
                 ST_OK);
    cr_assert_str_eq(model, "m");
    cr_assert_str_eq(text, "ab");
    cr_assert_not(add_special);
    codec_arena_fini(&a);
    cr_assert_eq(codec_get_tokenize(request, 0, &a, &model, &text, &add_special), ST_OK);
    cr_assert(add_special);
    codec_arena_fini(&a);
    struct msg_ids ids = {(const int32_t[]){1, 300}, 2};
    codec_put_tokenized(&b, &ids);
    cr_assert_eq(b.len, 5);
    cr_assert_eq(memcmp(b.data, "\x0a\x03\x01\xac\x02", 5), 0); /* packed varints */
    buf_clear(&b);
    codec_put_models(&b, names, 2, 5);
    cr_assert_eq(b.len, 18);
    cr_assert_eq(memcmp(b.data, "\x0a\x07\x0a\x03one\x10\x05\x0a\x07\x0a\x03two\x10\x05", 18), 0);
    buf_fini(&b);
}
