/* What the calls of both roles share: their identity, how they fail, what ends them, and the tokens
 * that wait to be said. A role's own call begins with a struct role_call, the role itself with a
 * struct role_base, so that the entries of its table that say nothing of their own are the ones
 * below.
 *
 * A call fails by role_fail(): the first reason stands, and the role's next flush ends the call
 * with it (at once there would be no telling what the caller still holds). Every call has a
 * deadline: the caller's, or else the node's own (LAW 7); and a call that says nothing is ended
 * after NODE_OPEN_NS.
 *
 * A call whose grammar is new to the engine waits while another thread compiles it: the role keeps
 * the call's message and says role_compile(), and hears go_on() when the engine has the grammar, or
 * when it is wrong. Calls wait in the order of their arrival, all that want the same grammar for
 * one compiling of it; each for as long as its deadline says. Who leaves leaves nothing but a draft
 * that is under way: it comes back and is kept, as one is that nobody uses any more.
 *
 * Thread: the loop thread.
 */
#ifndef NODE_ROLE_CALL_H
#define NODE_ROLE_CALL_H

#include "base/list.h"
#include "node/role.h"

/* A token that waits to be said, with its alternatives. */
struct said {
    struct msg_token token; /* its `top` is set when it is said */
    struct msg_logprob top[MSG_LOGPROBS_MAX];
};
void said_set(struct said *s, const struct msg_token *t);
struct msg_token said_get(const struct said *s); /* valid as long as `s` is */

struct role_call {
    slot_id id;
    void *rpc; /* NULL once the call is closed */
    int64_t opened_ns, deadline_ns;
    char request_id[MSG_REQUEST_ID_MAX + 1];
    enum status failure; /* ends the call at the next flush */
    const char *failure_text;
    bool spoken;                       /* its first message has come */
    bool finish_sent;                  /* the caller has been, or is being, told the end */
    struct list compiling;             /* among those that wait for a grammar */
    const struct msg_grammar *grammar; /* which; in the message that the role keeps */
};

struct role_base {
    struct node_role_args args;
    struct engine *engine;
    struct slots *calls; /* of the role's own kind */
    struct buf out;
    int64_t now_ns;
    bool draining;
    struct metric *m_quiet;
    struct list compiling; /* calls, oldest first */
    bool draft_is_out;
    /* The role's own: the call's grammar is there; `failed`: it is not, and why. */
    void (*go_on)(struct role *r, struct role_call *c, const struct error *failed);
};

enum status role_base_init(struct role_base *b, const struct node_role_args *args,
                           size_t call_bytes, struct error *err);
void role_base_fini(struct role_base *b);

/* Entries of the table. */
void role_set_engine(struct role *r, struct engine *e);
void *role_on_open(struct role *r, void *rpc, int64_t now_ns, int64_t deadline_ns);
void role_drain(struct role *r, bool final);
void role_load(const struct role *r, struct node_role_load *out);
void role_on_compiled(struct role *r, struct grammar_draft *draft, int64_t now_ns);
/* Of the engine's events: the group is its call's. */
void role_on_failed(void *role, void *user, enum status status, const char *why);

/* The call that a handle, or an engine's user, stands for; NULL: it has gone. */
void *role_call_of(struct role_base *b, void *user);
void *role_user_of(const struct role_call *c);
/* Its first message: whose it is, and how much time is left (0: nothing is said). */
void role_call_begin(const struct role_base *b, struct role_call *c, const char *request_id,
                     int64_t deadline_ms);
void role_fail(struct role_call *c, enum status status, const char *text);
/* Fails the call when its time is up. */
void role_check_time(struct role_call *c, int64_t now_ns);
/* The call waits for go_on(); `what` stays where it is as long. */
void role_compile(struct role_base *b, struct role_call *c, const struct msg_grammar *what);
void role_compile_leave(struct role_call *c); /* it waits no more, if it did */
/* Sends what `out` holds. ST_BUSY: the outbox is full, a flush follows when it is not. */
enum status role_send(struct role_base *b, struct role_call *c);
/* Says the end, once. */
void role_finish(struct role_base *b, struct role_call *c, enum status status, const char *text);
/* The last of a call that was cancelled at `closed_ns`: for the metric. */
void role_observe_quiet(struct role_base *b, const struct role_call *c, int64_t closed_ns);

#endif
