/* The JSON of answers: OpenAI's completions and chat completions, whole or as events of a stream.
 *
 * A caller describes the answer once (struct api_answer) and each choice as far as it is known
 * (struct api_choice_out); what is written is appended to a buffer, whose `failed` is looked at
 * once. Log probabilities are written as -9999 where they are infinite, token texts with U+FFFD
 * where they are half a character (their `bytes` carry the truth).
 *
 * Pure, any thread. Owner: api_tokens belongs to the caller, everything else is only read.
 */
#ifndef ROUTER_API_RENDER_H
#define ROUTER_API_RENDER_H

#include "router/api.h"
#include "router/api_output.h"

/* A token as an answer shows it. */
struct api_token {
    int32_t id, position;
    int32_t rank; /* of the prompt's tokens: 1 and up; 0: it has no score, or not yet */
    float logprob;
    struct msg_logprob *top;
    uint32_t n_top;
};
struct api_tokens {
    struct api_token *v;
    size_t n, cap;
};
bool api_tokens_push(struct api_tokens *a, const struct msg_token *t);
/* The tokens of a prompt, and their scores as they come. False when memory is out. */
bool api_tokens_of_prompt(struct api_tokens *a, struct msg_ids prompt);
bool api_tokens_score(struct api_tokens *a, const struct msg_score *s, int32_t n);
void api_tokens_clear(struct api_tokens *a);
void api_tokens_fini(struct api_tokens *a);

struct api_answer {
    enum api_kind kind;
    const struct tokenizer *tokenizer;
    char id[64];
    int64_t created_s;
    const char *model;
    bool logprobs, stream, include_usage;
    int32_t reasoning_tokens;             /* of all choices, for the usage */
    int32_t echo_top, prompt_top;         /* alternatives of the tokens of `echo`, of `prompt` */
    const struct api_tokens *chat_prompt; /* chat: prompt_logprobs; NULL: not wanted */
};
struct api_choice_out {
    int32_t index;
    struct api_text_ref text;
    const struct api_output *output; /* reasoning and calls to show; NULL: none */
    const struct api_tokens *tokens; /* NULL: no logprobs */
    const struct api_tokens *echo;   /* the prompt's, before `tokens`; NULL: not wanted */
    const struct api_tokens *prompt; /* prompt_logprobs; NULL: not wanted */
    size_t text_offset;              /* characters before the first of `tokens` */
    const char *finish;              /* "stop", "length", "tool_calls"; NULL: not yet */
    const char *stop_text;           /* the stop string that matched; NULL: none */
    int32_t stop_id;                 /* the id that stopped it; -1: none */
    bool role;                       /* chat chunk: the opening one */
};
/* A whole answer. */
void api_render_answer(struct buf *out, const struct api_answer *a,
                       const struct api_choice_out *choices, size_t n,
                       const struct msg_usage *usage);
/* One event of a stream, `data: ...\n\n`. choice NULL: the usage chunk. */
void api_render_chunk(struct buf *out, const struct api_answer *a, const struct api_choice_out *c,
                      const struct msg_usage *usage);
void api_render_usage(struct jw *w, const struct msg_usage *u, int32_t reasoning_tokens);
/* Characters (code points) of a text. */
size_t api_count_characters(const char *s, size_t len);

#endif
