/* One generation over HTTP, once its request has been read: from the run to a whole answer or to
 * server-sent events. For http_*.c alone.
 *
 * http_answer_create() makes it of the request and its ids, from any thread: it looks at what never
 * changes. http_answer_start() begins its run; from then on it looks after itself, and after the
 * HTTP request. Thread: the router's loop, but for create and free.
 */
#ifndef ROUTER_HTTP_ANSWER_H
#define ROUTER_HTTP_ANSWER_H

#include "router/router.h"

struct http_slot {
    struct buf text;          /* stream: not yet in a chunk */
    struct api_output output; /* where the text is taken apart */
    struct api_tokens tokens; /* with logprobs */
    size_t offset;            /* characters before the first of `tokens` */
    bool over, opened;
    enum msg_finish_reason reason;
    const char *stop_text; /* ours */
    int32_t stop_id;
};

struct http_prompt {
    struct buf echo;
    struct api_tokens tokens; /* where they are scored */
};

struct answer {
    struct http_user user; /* first */
    struct router *r;
    struct http_request *q; /* NULL: not started */
    struct run *run;        /* NULL: it has ended */
    struct api_answer head;
    struct http_slot *slots;
    size_t n_slots;
    struct http_prompt *prompts;
    size_t n_prompts;
    int32_t n;
    struct api_output_plan plan;
    struct buf out;
    bool begun, ended, broken, usage_always;
    bool echo, echo_scores, prompt_scores;
    char prefill[64], decode[64];
};

/* What was asked for, read. `all`: ids of each prompt. */
struct http_order {
    struct router *r;
    const struct api_request *req;
    const struct ids *all;
    const char *request_id;
    int64_t arrived_ns;
    bool inside_reasoning;
};
/* NULL: no memory. */
struct answer *http_answer_create(const struct http_order *o);
void http_answer_free(struct answer *a); /* one that was not started */
bool http_answer_start(struct answer *a, struct http_request *q, const struct http_order *o,
                       struct api_error *err);

/* http_answer.c */
extern const struct run_ops http_answer_ops;
void http_answer_event(struct http_user *user, enum http_event_kind kind);

#endif
