/* Messages with something in every field. */
#ifndef TESTS_PROTO_CODEC_SAMPLES_H
#define TESTS_PROTO_CODEC_SAMPLES_H

#include <criterion/criterion.h>
#include <string.h>

#include "proto/codec.h"

#define BYTES(b) (const uint8_t *)(b).data, (b).len

static const int32_t some_ids[] = {0, 1, 2147483647, 77};
static const struct msg_bias some_bias[] = {{5, -1.5f}, {6, 100.f}};
static const struct msg_logprob some_top[] = {{9, -0.1f}, {10, -2.5f}};
static const uint8_t some_address[] = {0, 255, 7};
static const struct msg_rank_address some_ranks[] = {
    {0, 0, 4, "host-a", "@shm0", some_address, 3},
    {1, 4, 8, "", "", NULL, 0},
};

static inline struct msg_sampling a_sampling(void)
{
    return (struct msg_sampling){
        .temperature = 0.7f,
        .top_p = 0.9f,
        .min_p = 0.05f,
        .top_k = 40,
        .repetition_penalty = 1.1f,
        .presence_penalty = -0.5f,
        .frequency_penalty = 0.25f,
        .seed = UINT64_MAX,
        .logprobs = 20,
        .max_tokens = 100,
        .min_tokens = 3,
        .ignore_eos = true,
        .stop_ids = {some_ids, 4},
        .bias = some_bias,
        .n_bias = 2,
        .grammar = {MSG_GRAMMAR_REGEX, "a+\xc3\xa9", 4},
    };
}

static inline struct msg_start a_start(void)
{
    static const struct msg_ids emitted[] = {{some_ids, 2}, {NULL, 0}, {some_ids + 2, 1}};
    static const bool finished[] = {false, true, false};
    return (struct msg_start){
        .request_id = "r-1",
        .prompt = {some_ids, 4},
        .n = 3,
        .emitted = emitted,
        .finished = finished,
        .sampling = a_sampling(),
        .cache_salt = "s\xc3\xa4lt",
        .deadline_ms = 1234567890123,
        .credits = 64,
        .local_prefill = true,
        .fingerprint = {1, UINT64_MAX},
        .scoring = {.begin = 3, .top = 20},
    };
}

static const struct msg_score some_scores[] = {{3, 77, 5, -7.5f, some_top, 2},
                                               {4, 0, 1, -0.25f, some_top, 1},
                                               {5, 1, 2147483647, -1.f, NULL, 0}};

static inline void same_scores(const struct msg_score *got, uint32_t n)
{
    cr_assert_eq(n, 3U);
    for (uint32_t i = 0; i < n; i++) {
        const struct msg_score *w = &some_scores[i], *g = &got[i];
        cr_assert(g->position == w->position && g->id == w->id && g->rank == w->rank);
        cr_assert(g->logprob == w->logprob && g->n_top == w->n_top);
        cr_assert(w->n_top == 0 || memcmp(g->top, w->top, w->n_top * sizeof *w->top) == 0);
    }
}

static inline enum status event_round(const struct msg_decode_event *m, struct codec_arena *a,
                                      struct msg_decode_event *got)
{
    struct buf b = {0};
    codec_put_decode_event(&b, m);
    cr_assert_not(b.failed);
    enum status st = codec_get_decode_event(BYTES(b), a, got);
    buf_fini(&b);
    return st;
}

#endif
