/* The messages between Baton's programs as plain C structs.
 *
 * Everything above floor 1 speaks these; codec_*.c turns them into protobuf bytes and back (those
 * under proto/baton/v1 are the published contract). A decoded message's pointers live in the
 * codec_arena that it was decoded into; encoders only read, so an encoder's input may point
 * anywhere. Decoders check every count against the limits below and every enum against its range:
 * what comes out of a decoder is safe to use, but not yet meaningful (ids < vocab is the node's
 * business).
 *
 * It has over 150 lines because the programs' whole vocabulary stands in one place.
 */
#ifndef PROTO_MESSAGES_H
#define PROTO_MESSAGES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/status.h"

#define MSG_WIRE_VERSION 1
#define MSG_IDS_MAX (16 << 20)
#define MSG_CHOICES_MAX 128
#define MSG_LOGPROBS_MAX 20
#define MSG_STOP_IDS_MAX 64
#define MSG_BIAS_MAX 1024
#define MSG_RANKS_MAX 64
#define MSG_ADDRESS_MAX 4096
#define MSG_REQUEST_ID_MAX 128
#define MSG_GRAMMAR_BYTES_MAX (256u << 10)
#define MSG_GRAMMAR_LEAD_MAX (4u << 10)
#define MSG_TOKENS_MAX 4096 /* tokens, or scores, in one message */

/* An array of token ids; on the wire little-endian u32 bytes. */
struct msg_ids {
    const int32_t *v;
    uint32_t n;
};

struct msg_bias {
    int32_t id;
    float bias;
};

/* What the generated text has to be; the numbers are the wire's. */
enum msg_grammar_kind {
    MSG_GRAMMAR_NONE,
    MSG_GRAMMAR_JSON_OBJECT, /* any JSON object; no text */
    MSG_GRAMMAR_JSON_SCHEMA,
    MSG_GRAMMAR_REGEX,
    MSG_GRAMMAR_GBNF,
    MSG_GRAMMAR_CHOICE,    /* a JSON array of strings */
    MSG_GRAMMAR_STRUCTURE, /* tokenizer/grammar/structure.c */
    MSG_GRAMMAR_KINDS
};
struct msg_grammar {
    enum msg_grammar_kind kind;
    const char *text;
    uint32_t len, lead; /* the text's first `lead` bytes: a structure that the rest stands behind */
};

/* How to choose tokens: with the prompt and the generated ids it determines a sequence completely
 * (LAW 5). */
struct msg_sampling {
    float temperature;                         /* 0: greedy */
    float top_p, min_p;                        /* 1, 0: off */
    int32_t top_k;                             /* 0: off */
    float repetition_penalty;                  /* 1: off; over prompt and generated ids */
    float presence_penalty, frequency_penalty; /* 0: off; over generated ids */
    uint64_t seed;                             /* always set: the router fixes a missing one */
    int32_t logprobs;   /* -1: none; 0..20 alternatives beside the chosen one */
    int32_t max_tokens; /* generated tokens at most; 0: the prompt is all there is to do */
    int32_t min_tokens; /* EOS and stop ids are masked before */
    bool ignore_eos;
    struct msg_ids stop_ids; /* besides the model's EOS */
    const struct msg_bias *bias;
    uint32_t n_bias;
    struct msg_grammar grammar;
};

struct msg_ticket { /* 128 random bits, minted by D per prompt */
    uint64_t w[2];
};

/* How to reach one rank of D. Each is opaque to all but its transport; empty: not offered. */
struct msg_rank_address {
    int32_t rank;
    int32_t head_begin, head_end; /* kv heads that this rank holds */
    const char *host;             /* identity of the host (boot id), to see whether shm can work */
    const char *shm;              /* name of its socket */
    const uint8_t *ucx;           /* worker address */
    uint32_t ucx_bytes;
};

struct msg_logprob {
    int32_t id;
    float logprob;
};

struct msg_token {
    int32_t choice;
    int32_t position; /* 0: first generated token */
    int32_t id;
    float logprob;                 /* of id; meaningful when logprobs were asked for */
    const struct msg_logprob *top; /* descending */
    uint32_t n_top;
};

/* Whether the prompt's own ids are to be scored, each given those before it. */
struct msg_scoring {
    int32_t begin; /* first position of the prompt to score, >= 1; 0: none is wanted */
    int32_t top;   /* 0..20 alternatives of each */
};

/* The log-probability of one id of the prompt, from the logits as the model gave them. */
struct msg_score {
    int32_t position; /* in the prompt, >= 1 */
    int32_t id;
    int32_t rank; /* of id among all, 1: the most likely */
    float logprob;
    const struct msg_logprob *top; /* descending */
    uint32_t n_top;
};

enum msg_finish_reason { MSG_FINISH_STOP = 1, MSG_FINISH_LENGTH = 2 };

/* router -> D, first message of Decode.Start */
struct msg_start {
    const char *request_id;
    struct msg_ids prompt;
    int32_t n;                     /* choices */
    const struct msg_ids *emitted; /* [n] ids already said per choice (a resumed request) */
    const bool *finished;          /* [n] choices that need nothing more */
    struct msg_sampling sampling;
    const char *cache_salt; /* "": shared */
    int64_t deadline_ms;    /* from now */
    int64_t credits;    /* tokens (over all choices) that may be sent before more credit comes */
    bool local_prefill; /* no prefill node will come: compute the prompt here */
    uint64_t fingerprint[2];
    struct msg_scoring scoring; /* said by whoever computes the prompt, before any token */
};

/* D -> router */
struct msg_accepted {
    struct msg_ticket ticket;
    int32_t have_tokens; /* KV that D has already; P offers only what follows */
    const struct msg_rank_address *ranks;
    uint32_t n_ranks;
};

struct msg_usage {
    int32_t prompt_tokens, cached_tokens, completion_tokens;
};

struct msg_finish {
    int32_t choice;
    enum msg_finish_reason reason;
    int32_t stop_id; /* the id that stopped it, -1: none */
};

enum msg_decode_kind {
    MSG_D_ACCEPTED = 1,
    MSG_D_REJECTED,
    MSG_D_TOKENS,
    MSG_D_FINISH,
    MSG_D_DONE,
    MSG_D_SCORES
};

struct msg_decode_event {
    enum msg_decode_kind kind;
    struct msg_accepted accepted;
    enum status rejected; /* BUSY, NEVER_FITS, INVALID, INCOMPATIBLE */
    const char *reason;
    const struct msg_token *tokens;
    uint32_t n_tokens;
    const struct msg_score *scores; /* of adjacent positions */
    uint32_t n_scores;
    struct msg_finish finish;
    struct msg_usage usage; /* with MSG_D_DONE: every choice has finished */
    int64_t kv_wait_us, decode_us;
};

/* router -> D, later messages */
struct msg_decode_control {
    int64_t credit;             /* > 0: more tokens may flow */
    uint32_t stop_choice_plus1; /* > 0: this choice ends (a stop string matched) */
    bool prefill_here; /* no prefill node will come after all: compute what is missing here */
};

/* router -> P */
struct msg_prefill {
    const char *request_id;
    struct msg_ids prompt; /* prompt (n > 1) or prompt + emitted (n == 1) */
    int32_t prompt_tokens; /* of these, how many are the prompt: penalties tell them apart */
    int32_t n;
    bool want_first; /* sample the first token of each choice */
    struct msg_sampling sampling;
    const char *cache_salt;
    struct msg_ticket ticket;
    int32_t have_tokens;
    const struct msg_rank_address *ranks;
    uint32_t n_ranks;
    int64_t deadline_ms;
    uint64_t fingerprint[2];
    struct msg_scoring scoring;
};

/* P -> router; the last one has `first`, those before it are pieces of the scores */
struct msg_prefill_event {
    const struct msg_token *first; /* one per choice, or none */
    uint32_t n_first;
    int32_t cached_tokens; /* prefix hit on P */
    int64_t queue_us, compute_us;
    const struct msg_score *scores;
    uint32_t n_scores;
};

struct msg_blocks {
    int64_t total, free, reserved, receiving, running, cached, quarantined;
};

/* Admin.Status */
struct msg_status {
    const char *name, *role; /* "prefill" "decode" "both" */
    const char *model;
    uint64_t fingerprint[2];
    uint64_t boot; /* random per process start */
    uint32_t wire_min, wire_max;
    bool draining, ready;
    int32_t max_context, vocab;
    int64_t running, waiting, waiting_tokens; /* sequences, sequences, prompt tokens to compute */
    int64_t slots;                            /* calls it will take at once */
    struct msg_blocks blocks;
    int32_t block_tokens;
    int64_t room_tokens; /* of the longest sequence that the blocks hold; 0: all of them do */
    int64_t prefill_ns_per_token, decode_ns_per_step; /* smoothed, measured */
    const char *http;                                 /* its own HTTP address */
};

enum msg_admin_verb { MSG_ADMIN_STATUS = 1, MSG_ADMIN_DRAIN };

/* public gRPC: Generate */
struct msg_generate {
    const char *model, *request_id;
    const char *text; /* NULL: not given */
    struct msg_ids ids;
    struct msg_sampling sampling;
    bool has_seed, has_temperature, has_top_p, has_top_k, has_min_p, has_repetition_penalty;
    int32_t n;
    const char *const *stop;
    uint32_t n_stop;
    const char *cache_salt;
    bool add_special; /* for text */
    bool has_prompt_logprobs, prompt_only;
    int32_t prompt_logprobs;
    const char *wrong; /* after ST_PROTOCOL: the field to blame; NULL: the bytes are no message */
};

struct msg_generate_event {
    int32_t choice;
    const char *text;               /* delta */
    struct msg_ids ids;             /* delta */
    const struct msg_token *tokens; /* with logprobs, when asked for */
    uint32_t n_tokens;
    const struct msg_score *prompt; /* of the prompt's tokens, when asked for */
    uint32_t n_prompt;
    int32_t finish_reason; /* 0: not yet */
    bool has_usage;
    struct msg_usage usage; /* with the last event */
};

#endif
