/* The life of one request on the router, as a pure state machine: events in, actions out.
 *
 *            admit              accepted, P chosen            P ended well
 *  QUEUED ---------> RESERVING ------------------> FILLING ------------------> DECODING
 *    ^                | |  \                       |  | \                       ^ ^  |
 *    |                | |   \                      |  |  \ P lost, none left:   | |  |
 *    |                | |    \                     |  |   +-- D by itself ------+ |  |
 *    |                | |     +-- accepted, D computes by itself -----------------+  |
 *    |                | |                          |  |                              |
 *    +----------------+-|--------------------------+--|------------------------------+
 *      BUSY, D lost,    |                             |
 *      preempted        +-------- ended: all choices finished, cancel, deadline, poison ---> DONE
 *
 * QUEUED: waits in the router, the only place where work waits (LAW 7); holds nothing anywhere.
 * RESERVING: Start is with a decode node. FILLING: it has accepted and a prefill node is computing
 * and sending. DECODING: nothing but the decode stream is left. DONE: ended once, with one status.
 *
 * Where the prompt is to be scored, that comes first: no token is heard before the last score, and
 * a request whose choices are all over (nothing was to be generated) ends with it. Whoever computes
 * the prompt says them; each position counts once, and what is missing is asked for again.
 *
 * Tokens may come from either node in any state with a live call; each position of a choice is
 * emitted once, from whoever says it first (LAW 8). After a loss the request goes back to QUEUED
 * and resumes from what was emitted: nothing else is needed (LAW 5). A request that was present at
 * REQUEST_DEATHS_MAX losses of nodes is poison and fails.
 *
 * No I/O, clock or malloc but for the emitted ids. Owner: core.c.
 */
#ifndef ROUTER_REQUEST_H
#define ROUTER_REQUEST_H

#include <stdbool.h>
#include <stdint.h>

#include "proto/messages.h"

#define REQUEST_DEATHS_MAX 3
#define REQUEST_ACTIONS_MAX 8

enum request_state {
    REQUEST_QUEUED,
    REQUEST_RESERVING,
    REQUEST_FILLING,
    REQUEST_DECODING,
    REQUEST_DONE,
    REQUEST_STATES
};

enum request_action {
    REQUEST_START_D, /* begin Decode.Start on the decode node that was picked */
    REQUEST_START_P, /* begin Prefill.Run on the prefill node that was picked */
    REQUEST_PICK_P,  /* pick another prefill node: request_p_picked() or request_no_p() */
    REQUEST_CANCEL_D,
    REQUEST_CANCEL_P,
    REQUEST_PREFILL_HERE,  /* tell D that no prefill node will come */
    REQUEST_REQUEUE,       /* back to its place in the queue */
    REQUEST_REQUEUE_LATER, /* the same, and the node is left alone for a short while: it is full */
    REQUEST_END,           /* tell the client: end_status, end_text */
};

struct request_choice {
    int32_t *ids; /* emitted */
    int32_t n, cap;
    bool finished;
    enum msg_finish_reason reason;
    int32_t stop_id;
};

struct request {
    enum request_state state;
    int32_t n;
    struct request_choice *choices; /* [n] */
    int32_t finished;
    bool d_live, p_live;       /* calls in flight */
    bool local;                /* D computes the prompt by itself */
    bool flowing;              /* D has said a token: it has all the KV it needs */
    int32_t scored, score_end; /* scores of positions [scored, score_end) are missing */
    int32_t deaths, losses, p_tries;
    struct msg_ticket ticket;
    int32_t have_tokens;
    enum status end_status;
    char end_text[256];
    enum request_action actions[REQUEST_ACTIONS_MAX];
    int32_t n_actions;
    int64_t at_ns[REQUEST_STATES];
};

enum status request_init(struct request *r, int32_t n, int64_t now_ns);
void request_fini(struct request *r);
/* The prompt's ids at [1, prompt_tokens) are to be scored. */
void request_want_scores(struct request *r, int32_t prompt_tokens);
static inline bool request_scores_missing(const struct request *r)
{
    return r->scored < r->score_end;
}
bool request_take_action(struct request *r, enum request_action *out);

/* A decode node was picked; `local`: no prefill node, D is told to compute. */
void request_admit(struct request *r, bool local, int64_t now_ns);
void request_on_accepted(struct request *r, const struct msg_accepted *m, bool short_rest,
                         int64_t now_ns);
/* PREEMPTED: not there, but another node may take it. */
void request_on_rejected(struct request *r, enum status status, const char *reason, int64_t now_ns);
void request_p_picked(struct request *r);
void request_no_p(struct request *r, int64_t now_ns);

enum request_verdict { REQUEST_EMIT, REQUEST_SEEN, REQUEST_CONFLICT };
/* A token that a node said; `from_d` or from the prefill node. EMIT: say it to the client, it is
 * recorded. CONFLICT: the node disagrees with what was said, or skipped something: its call ends
 * and the request resumes. */
enum request_verdict request_on_token(struct request *r, const struct msg_token *t, bool from_d,
                                      int64_t now_ns);
/* Scores of adjacent positions that a node said: how many of them, from the first on, are known
 * already; the others are recorded. -1: a node skipped some; its call ends and the request resumes.
 */
int32_t request_on_scores(struct request *r, const struct msg_score *s, int32_t n, int64_t now_ns);
/* D says that a choice is over. False: it was over already, or D contradicts what was emitted. */
bool request_on_finish(struct request *r, const struct msg_finish *f, int64_t now_ns);
/* The router itself ends a choice (stop string). */
void request_stop_choice(struct request *r, int32_t choice, int64_t now_ns);
void request_on_d_closed(struct request *r, enum status status, const char *text, int64_t now_ns);
void request_on_p_closed(struct request *r, enum status status, const char *text, int64_t now_ns);
/* Ends it whatever it is doing: the client is gone, the time is up. */
void request_end(struct request *r, enum status status, const char *text, int64_t now_ns);

#endif
