#include "router/request.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define BIT(s) (1u << (s))
static const unsigned allowed[REQUEST_STATES] = {
    [REQUEST_QUEUED] = BIT(REQUEST_RESERVING) | BIT(REQUEST_DONE),
    [REQUEST_RESERVING] =
        BIT(REQUEST_FILLING) | BIT(REQUEST_DECODING) | BIT(REQUEST_QUEUED) | BIT(REQUEST_DONE),
    [REQUEST_FILLING] = BIT(REQUEST_DECODING) | BIT(REQUEST_QUEUED) | BIT(REQUEST_DONE),
    [REQUEST_DECODING] = BIT(REQUEST_QUEUED) | BIT(REQUEST_DONE),
    [REQUEST_DONE] = 0,
};

static void request_move(struct request *r, enum request_state to, int64_t now_ns)
{
    assert(allowed[r->state] & BIT(to));
    r->state = to;
    r->at_ns[to] = now_ns;
}

static void act(struct request *r, enum request_action a)
{
    assert(r->n_actions < REQUEST_ACTIONS_MAX);
    r->actions[r->n_actions++] = a;
}

bool request_take_action(struct request *r, enum request_action *out)
{
    if (r->n_actions == 0)
        return false;
    *out = r->actions[0];
    memmove(r->actions, r->actions + 1, sizeof(r->actions[0]) * (size_t)--r->n_actions);
    return true;
}

enum status request_init(struct request *r, int32_t n, int64_t now_ns)
{
    memset(r, 0, sizeof(*r));
    r->choices = calloc((size_t)n, sizeof(*r->choices));
    if (!r->choices)
        return ST_NO_MEMORY;
    r->n = n;
    r->at_ns[REQUEST_QUEUED] = now_ns;
    return ST_OK;
}

void request_fini(struct request *r)
{
    for (int32_t i = 0; r->choices && i < r->n; i++)
        free(r->choices[i].ids);
    free(r->choices);
    r->choices = NULL;
}

void request_want_scores(struct request *r, int32_t prompt_tokens)
{
    r->scored = 1;
    r->score_end = prompt_tokens;
}

/* What was to begin and has not been carried out is off: whatever it was for is over. */
static void drop_beginnings(struct request *r)
{
    int32_t kept = 0;
    for (int32_t i = 0; i < r->n_actions; i++) {
        enum request_action a = r->actions[i];
        if (a != REQUEST_START_D && a != REQUEST_START_P && a != REQUEST_PICK_P &&
            a != REQUEST_PREFILL_HERE)
            r->actions[kept++] = a;
    }
    r->n_actions = kept;
}

static void cancel_calls(struct request *r)
{
    drop_beginnings(r);
    if (r->d_live)
        act(r, REQUEST_CANCEL_D);
    if (r->p_live)
        act(r, REQUEST_CANCEL_P);
    r->d_live = r->p_live = false;
}

void request_end(struct request *r, enum status status, const char *text, int64_t now_ns)
{
    if (r->state == REQUEST_DONE)
        return;
    cancel_calls(r);
    r->end_status = status;
    snprintf(r->end_text, sizeof(r->end_text), "%s", text ? text : "");
    request_move(r, REQUEST_DONE, now_ns);
    act(r, REQUEST_END);
}

/* Back to the queue, to resume from what was emitted. */
static void requeue(struct request *r, bool later, int64_t now_ns)
{
    cancel_calls(r);
    r->flowing = r->local = false;
    r->p_tries = 0;
    request_move(r, REQUEST_QUEUED, now_ns);
    act(r, later ? REQUEST_REQUEUE_LATER : REQUEST_REQUEUE);
}

/* A node was lost (or contradicted itself) under this request. */
static void lost(struct request *r, bool death, const char *what, int64_t now_ns)
{
    r->deaths += death;
    /* Losses that no node died of (a link, a restart in time) are bounded too, generously. */
    if (r->deaths >= REQUEST_DEATHS_MAX || ++r->losses >= 8 * REQUEST_DEATHS_MAX)
        request_end(r, ST_INTERNAL, what, now_ns);
    else
        requeue(r, false, now_ns);
}

void request_admit(struct request *r, bool local, int64_t now_ns)
{
    r->local = local;
    r->d_live = true;
    r->flowing = false;
    request_move(r, REQUEST_RESERVING, now_ns);
    act(r, REQUEST_START_D);
}

void request_on_accepted(struct request *r, const struct msg_accepted *m, bool short_rest,
                         int64_t now_ns)
{
    if (r->state != REQUEST_RESERVING)
        return;
    r->ticket = m->ticket;
    r->have_tokens = m->have_tokens;
    if (r->local) {
        request_move(r, REQUEST_DECODING, now_ns);
    } else if (short_rest) {
        request_move(r, REQUEST_DECODING, now_ns);
        act(r, REQUEST_PREFILL_HERE);
    } else {
        request_move(r, REQUEST_FILLING, now_ns);
        r->p_live = true;
        act(r, REQUEST_START_P);
    }
}

void request_on_rejected(struct request *r, enum status status, const char *reason, int64_t now_ns)
{
    if (r->state != REQUEST_RESERVING)
        return;
    r->d_live = false; /* the call ends by itself */
    if (status == ST_BUSY || status == ST_INCOMPATIBLE)
        requeue(r, true, now_ns);
    else if (status == ST_PREEMPTED)
        requeue(r, false, now_ns);
    else
        request_end(r, status, reason, now_ns);
}

void request_p_picked(struct request *r)
{
    assert(r->state == REQUEST_FILLING && !r->p_live);
    r->p_live = true;
    act(r, REQUEST_START_P);
}

void request_no_p(struct request *r, int64_t now_ns)
{
    assert(r->state == REQUEST_FILLING && !r->p_live);
    request_move(r, REQUEST_DECODING, now_ns);
    act(r, REQUEST_PREFILL_HERE);
}

static bool remember(struct request_choice *c, int32_t id)
{
    if (c->n == c->cap) {
        int32_t cap = c->cap ? 2 * c->cap : 32;
        int32_t *ids = realloc(c->ids, sizeof(int32_t) * (size_t)cap);
        if (!ids)
            return false;
        c->ids = ids;
        c->cap = cap;
    }
    c->ids[c->n++] = id;
    return true;
}

enum request_verdict request_on_token(struct request *r, const struct msg_token *t, bool from_d,
                                      int64_t now_ns)
{
    if (r->state == REQUEST_DONE || r->state == REQUEST_QUEUED)
        return REQUEST_SEEN;
    if (from_d)
        r->flowing = true;
    if (t->choice < 0 || t->choice >= r->n || t->position < 0) {
        lost(r, true, "a node answered nonsense", now_ns);
        return REQUEST_CONFLICT;
    }
    if (request_scores_missing(r)) {
        lost(r, true, "a node skipped scores of the prompt", now_ns);
        return REQUEST_CONFLICT;
    }
    struct request_choice *c = &r->choices[t->choice];
    if (t->position < c->n) {
        if (c->ids[t->position] == t->id)
            return REQUEST_SEEN;
        lost(r, true, "nodes disagree about the same token", now_ns);
        return REQUEST_CONFLICT;
    }
    if (c->finished)
        return REQUEST_SEEN;
    if (t->position > c->n) {
        lost(r, true, "a node skipped a token", now_ns);
        return REQUEST_CONFLICT;
    }
    if (!remember(c, t->id)) {
        request_end(r, ST_NO_MEMORY, "no memory for tokens", now_ns);
        return REQUEST_CONFLICT;
    }
    return REQUEST_EMIT;
}

int32_t request_on_scores(struct request *r, const struct msg_score *s, int32_t n, int64_t now_ns)
{
    if (r->state == REQUEST_DONE || r->state == REQUEST_QUEUED || n == 0)
        return n;
    int32_t begin = s[0].position;
    if (begin > r->scored || begin + n > r->score_end) {
        lost(r, true, "a node skipped scores of the prompt", now_ns);
        return -1;
    }
    if (begin + n <= r->scored)
        return n;
    int32_t known = r->scored - begin;
    r->scored = begin + n;
    if (!request_scores_missing(r) && r->finished == r->n)
        request_end(r, ST_OK, "", now_ns);
    return known;
}

static void finish_choice(struct request *r, struct request_choice *c, int64_t now_ns)
{
    c->finished = true;
    if (++r->finished == r->n && !request_scores_missing(r))
        request_end(r, ST_OK, "", now_ns);
}

bool request_on_finish(struct request *r, const struct msg_finish *f, int64_t now_ns)
{
    if (r->state == REQUEST_DONE || r->state == REQUEST_QUEUED)
        return false;
    if (f->choice < 0 || f->choice >= r->n) {
        lost(r, true, "a node answered nonsense", now_ns);
        return false;
    }
    struct request_choice *c = &r->choices[f->choice];
    if (c->finished)
        return false;
    c->reason = f->reason;
    c->stop_id = f->stop_id;
    finish_choice(r, c, now_ns);
    return true;
}

void request_stop_choice(struct request *r, int32_t choice, int64_t now_ns)
{
    struct request_choice *c = &r->choices[choice];
    if (r->state == REQUEST_DONE || c->finished)
        return;
    c->reason = MSG_FINISH_STOP;
    c->stop_id = -1;
    finish_choice(r, c, now_ns);
}

void request_on_d_closed(struct request *r, enum status status, const char *text, int64_t now_ns)
{
    if (!r->d_live)
        return;
    r->d_live = false;
    if (status == ST_OK && r->finished == r->n && r->p_live)
        return; /* nothing was to be generated: the scores are on their way from P */
    switch (status) {
    case ST_PREEMPTED:
        requeue(r, false, now_ns);
        break;
    case ST_BUSY:
        requeue(r, true, now_ns);
        break;
    case ST_DEADLINE:
    case ST_INVALID:
    case ST_NEVER_FITS:
    case ST_UNSUPPORTED:
        request_end(r, status, text, now_ns);
        break;
    default:
        /* An OK without all finishes is a failure like any other: a stream that ends without
         * finish. */
        lost(r, status != ST_CANCELLED, "the decode nodes of this request were lost", now_ns);
    }
}

void request_on_p_closed(struct request *r, enum status status, const char *text, int64_t now_ns)
{
    if (!r->p_live)
        return;
    r->p_live = false;
    if (r->state != REQUEST_FILLING)
        return;
    bool lacking = request_scores_missing(r);
    if (!lacking && (status == ST_OK || r->flowing)) {
        request_move(r, REQUEST_DECODING, now_ns);
        return;
    }
    if (status == ST_INVALID || status == ST_UNSUPPORTED || status == ST_DEADLINE) {
        request_end(r, status, text, now_ns);
        return;
    }
    if (status == ST_LINK || status == ST_INTERNAL || status == ST_PROTOCOL)
        r->deaths++;
    if (r->deaths >= REQUEST_DEATHS_MAX) {
        request_end(r, ST_INTERNAL, "the prefill nodes of this request were lost", now_ns);
        return;
    }
    if (lacking && (status == ST_OK || !r->d_live)) {
        lost(r, false, "a prefill node skipped scores of the prompt", now_ns);
        return;
    }
    r->p_tries++;
    act(r, REQUEST_PICK_P);
}
