/* A generation: one or more prompts, n choices of each, from ids to text. What HTTP and gRPC share
 * between a parsed request and their own way of writing answers.
 *
 * Each prompt is one request of the core; choice c of prompt p has index p * n + c. Tokens come as
 * text (cut at stop strings) and as they are. The owner says run_consumed() when what it was given
 * has gone out: that is the credit of the nodes, so a client that does not read pauses its own
 * sequences only.
 *
 * Owner: run_start() gives an object that lives until its end() was called, or until
 * run_abandon(): then it cancels everything and frees itself. Thread: the router's loop. Callbacks
 * come from within the core and must not start or abandon other runs; run_abandon() of the run
 * itself is allowed in delta() and finish() (not in end()).
 */
#ifndef ROUTER_RUN_H
#define ROUTER_RUN_H

#include "base/list.h"
#include "router/api.h"
#include "router/core.h"

struct run;
struct router;

struct run_finish {
    enum msg_finish_reason reason;
    const char *stop_text; /* NULL: none */
    int32_t stop_id;       /* -1: none; the model's own EOS counts as none */
};
struct run_ops {
    /* Scores of adjacent tokens of a prompt, in order, from position 1 on; all before the first
     * delta of its choices. NULL: not wanted. */
    void (*scores)(void *owner, size_t prompt, const struct msg_score *s, int32_t n);
    /* New text (maybe none) and, when a token brought it, that token; NULL: what was held back. */
    void (*delta)(void *owner, int32_t index, struct api_text_ref text, const struct msg_token *t);
    /* The choice is over: stop_text when a stop string ended it, stop_id when an id did. */
    void (*finish)(void *owner, int32_t index, const struct run_finish *f);
    void (*end)(void *owner, enum status status, const char *text, const struct msg_usage *usage);
};

struct run_args {
    struct router *router;
    const struct run_ops *ops;
    void *owner;
    const char *request_id;
    int64_t arrived_ns;
    const struct msg_ids *prompts;
    size_t n_prompts;
    int32_t n;
    bool has_seed;                /* else each prompt gets one */
    struct msg_sampling sampling; /* max_tokens -1: what the context has room for */
    bool score;                   /* the prompts' tokens too, with so many alternatives: */
    int32_t score_top;
    const char *cache_salt;
    const struct api_text_ref *stops; /* copied */
    size_t n_stops;
    bool include_stop, skip_special, tell_special; /* as in struct api_text_args */
};
/* Fails with the core's status and text; nothing was started then. */
enum status run_start(const struct run_args *args, struct run **out, struct error *err);
void run_consumed(struct run *r);
/* In delta(): of its text, the bytes at the end that are a special token's (tell_special). */
size_t run_special_bytes(const struct run *r);
void run_abandon(struct run *r);
/* Ends it for a reason of the router's own: end() comes with it. `text` is a constant. */
void run_cancel(struct run *r, enum status status, const char *text);
/* What it has used until now, all prompts together. */
struct msg_usage run_usage(const struct run *r);
/* The nodes of the first prompt, "" when not known. */
void run_nodes(const struct run *r, const char **prefill, const char **decode);

/* The run of a member of router->runs. */
struct run *run_of(struct list *member);

/* What the core's effects call. */
void run_on_scores(void *part, const struct msg_score *s, int32_t n);
void run_on_token(void *part, const struct msg_token *t);
void run_on_finish(void *part, const struct msg_finish *f);
void run_on_end(void *part, enum status status, const char *text, const struct msg_usage *usage);

#endif
