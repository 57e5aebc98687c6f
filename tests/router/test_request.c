/* The life of one request as a table: every event in every state, what becomes of it and what is to
 * be done. Actions are written as letters:
 *   S start D   s start P   K pick a P   C cancel D   c cancel P   H prefill here
 *   R requeue   L requeue later   E end
 * It has over 600 lines because the table stands in one place. */
#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

#include "router/request.h"

enum at { /* where a request stands before the event */
          QUEUED,
          RESERVING,  /* a prefill node was picked too */
          RESERVINGL, /* D is told to compute */
          FILLING,
          FILLING_FLOWING, /* D has said a token while P's call is still there */
          FILLING_NO_P,    /* P is lost, another is to be picked */
          DECODING,
          DONE,
          PLACES
};
static const char *const at_names[PLACES] = {
    "queued",          "reserving",         "reserving local", "filling",
    "filling flowing", "filling without P", "decoding",        "done"};

enum what {
    ADMIT,
    ACCEPTED,
    ACCEPTED_SHORT,
    REJECTED_BUSY,
    REJECTED_ELSEWHERE,
    REJECTED_INCOMPATIBLE,
    REJECTED_NEVER,
    REJECTED_INVALID,
    P_PICKED,
    NO_P,
    TOKEN_D,
    TOKEN_P,
    TOKEN_SKIPPED,
    TOKEN_NONSENSE,
    FINISH,
    FINISH_NONSENSE,
    STOP,
    D_OK,
    D_LINK,
    D_CANCELLED,
    D_PREEMPTED,
    D_BUSY,
    D_INVALID,
    D_NEVER,
    D_DEADLINE,
    P_OK,
    P_LINK,
    P_BUSY,
    P_PREEMPTED,
    P_TRANSFER,
    P_INVALID,
    P_DEADLINE,
    END,
    WHATS
};

static void apply(struct request *r, enum what w)
{
    const struct msg_accepted accepted = {.ticket = {{1, 2}}, .have_tokens = 3};
    struct msg_token t = {.id = 7};
    switch (w) {
    case ADMIT:
        request_admit(r, false, 1);
        break;
    case ACCEPTED:
    case ACCEPTED_SHORT:
        request_on_accepted(r, &accepted, w == ACCEPTED_SHORT, 2);
        break;
    case REJECTED_ELSEWHERE:
        request_on_rejected(r, ST_PREEMPTED, "too long for this one", 2);
        break;
    case REJECTED_BUSY:
        request_on_rejected(r, ST_BUSY, "full", 2);
        break;
    case REJECTED_INCOMPATIBLE:
        request_on_rejected(r, ST_INCOMPATIBLE, "other model", 2);
        break;
    case REJECTED_NEVER:
        request_on_rejected(r, ST_NEVER_FITS, "too long", 2);
        break;
    case REJECTED_INVALID:
        request_on_rejected(r, ST_INVALID, "wrong", 2);
        break;
    case P_PICKED:
        request_p_picked(r);
        break;
    case NO_P:
        request_no_p(r, 3);
        break;
    case TOKEN_D:
    case TOKEN_P:
        t.position = r->choices[0].n;
        request_on_token(r, &t, w == TOKEN_D, 4);
        break;
    case TOKEN_SKIPPED:
        t.position = r->choices[0].n + 1;
        request_on_token(r, &t, true, 4);
        break;
    case TOKEN_NONSENSE:
        t.choice = 5;
        request_on_token(r, &t, true, 4);
        break;
    case FINISH:
        request_on_finish(r, &(struct msg_finish){.reason = MSG_FINISH_LENGTH, .stop_id = -1}, 5);
        break;
    case FINISH_NONSENSE:
        request_on_finish(r, &(struct msg_finish){.choice = 5, .reason = MSG_FINISH_STOP}, 5);
        break;
    case STOP:
        request_stop_choice(r, 0, 5);
        break;
    case D_OK:
        request_on_d_closed(r, ST_OK, "", 6);
        break;
    case D_LINK:
        request_on_d_closed(r, ST_LINK, "gone", 6);
        break;
    case D_CANCELLED:
        request_on_d_closed(r, ST_CANCELLED, "gone", 6);
        break;
    case D_PREEMPTED:
        request_on_d_closed(r, ST_PREEMPTED, "full", 6);
        break;
    case D_BUSY:
        request_on_d_closed(r, ST_BUSY, "full", 6);
        break;
    case D_INVALID:
        request_on_d_closed(r, ST_INVALID, "wrong", 6);
        break;
    case D_NEVER:
        request_on_d_closed(r, ST_NEVER_FITS, "too long", 6);
        break;
    case D_DEADLINE:
        request_on_d_closed(r, ST_DEADLINE, "late", 6);
        break;
    case P_OK:
        request_on_p_closed(r, ST_OK, "", 6);
        break;
    case P_LINK:
        request_on_p_closed(r, ST_LINK, "gone", 6);
        break;
    case P_BUSY:
        request_on_p_closed(r, ST_BUSY, "full", 6);
        break;
    case P_PREEMPTED:
        request_on_p_closed(r, ST_PREEMPTED, "full", 6);
        break;
    case P_TRANSFER:
        request_on_p_closed(r, ST_TRANSFER, "no way", 6);
        break;
    case P_INVALID:
        request_on_p_closed(r, ST_INVALID, "wrong", 6);
        break;
    case P_DEADLINE:
        request_on_p_closed(r, ST_DEADLINE, "late", 6);
        break;
    case END:
        request_end(r, ST_CANCELLED, "the client has gone", 7);
        break;
    case WHATS:
        break;
    }
}

static const char *actions_of(struct request *r)
{
    static char out[REQUEST_ACTIONS_MAX + 1];
    static const char letters[] = "SsKCcHRLE";
    enum request_action a;
    int n = 0;
    while (request_take_action(r, &a))
        out[n++] = letters[a];
    out[n] = '\0';
    return out;
}

static void stand(struct request *r, enum at at)
{
    cr_assert_eq(request_init(r, 1, 0), ST_OK);
    if (at == QUEUED)
        return;
    request_admit(r, at == RESERVINGL, 1);
    if (at == DECODING)
        apply(r, ACCEPTED_SHORT);
    else if (at == FILLING || at == FILLING_FLOWING || at == FILLING_NO_P)
        apply(r, ACCEPTED);
    if (at == FILLING_FLOWING)
        apply(r, TOKEN_D);
    if (at == FILLING_NO_P)
        apply(r, P_BUSY);
    if (at == DONE)
        apply(r, END);
    actions_of(r);
}

struct row {
    enum at at;
    enum what what;
    enum request_state state;
    const char *actions;
};

#define Q REQUEST_QUEUED
#define V REQUEST_RESERVING
#define F REQUEST_FILLING
#define D REQUEST_DECODING
#define X REQUEST_DONE
/* Every pair but those that the core must never bring about (they assert): ADMIT unless queued,
 * P_PICKED and NO_P unless a prefill node is to be picked. */
static const struct row rows[] = {
    {QUEUED, ADMIT, V, "S"},
    {QUEUED, ACCEPTED, Q, ""},
    {QUEUED, ACCEPTED_SHORT, Q, ""},
    {QUEUED, REJECTED_BUSY, Q, ""},
    {QUEUED, REJECTED_ELSEWHERE, Q, ""},
    {QUEUED, REJECTED_INCOMPATIBLE, Q, ""},
    {QUEUED, REJECTED_NEVER, Q, ""},
    {QUEUED, REJECTED_INVALID, Q, ""},
    {QUEUED, TOKEN_D, Q, ""},
    {QUEUED, TOKEN_P, Q, ""},
    {QUEUED, TOKEN_SKIPPED, Q, ""},
    {QUEUED, TOKEN_NONSENSE, Q, ""},
    {QUEUED, FINISH, Q, ""},
    {QUEUED, FINISH_NONSENSE, Q, ""},
    {QUEUED, STOP, X, "E"},
    {QUEUED, D_OK, Q, ""},
    {QUEUED, D_LINK, Q, ""},
    {QUEUED, D_CANCELLED, Q, ""},
    {QUEUED, D_PREEMPTED, Q, ""},
    {QUEUED, D_BUSY, Q, ""},
    {QUEUED, D_INVALID, Q, ""},
    {QUEUED, D_NEVER, Q, ""},
    {QUEUED, D_DEADLINE, Q, ""},
    {QUEUED, P_OK, Q, ""},
    {QUEUED, P_LINK, Q, ""},
    {QUEUED, P_BUSY, Q, ""},
    {QUEUED, P_PREEMPTED, Q, ""},
    {QUEUED, P_TRANSFER, Q, ""},
    {QUEUED, P_INVALID, Q, ""},
    {QUEUED, P_DEADLINE, Q, ""},
    {QUEUED, END, X, "E"},

    {RESERVING, ACCEPTED, F, "s"},
    {RESERVING, ACCEPTED_SHORT, D, "H"},
    {RESERVING, REJECTED_BUSY, Q, "L"},
    {RESERVING, REJECTED_ELSEWHERE, Q, "R"},
    {RESERVING, REJECTED_INCOMPATIBLE, Q, "L"},
    {RESERVING, REJECTED_NEVER, X, "E"},
    {RESERVING, REJECTED_INVALID, X, "E"},
    {RESERVING, TOKEN_D, V, ""},
    {RESERVING, TOKEN_P, V, ""},
    {RESERVING, TOKEN_SKIPPED, Q, "CR"},
    {RESERVING, TOKEN_NONSENSE, Q, "CR"},
    {RESERVING, FINISH, X, "CE"},
    {RESERVING, FINISH_NONSENSE, Q, "CR"},
    {RESERVING, STOP, X, "CE"},
    {RESERVING, D_OK, Q, "R"},
    {RESERVING, D_LINK, Q, "R"},
    {RESERVING, D_CANCELLED, Q, "R"},
    {RESERVING, D_PREEMPTED, Q, "R"},
    {RESERVING, D_BUSY, Q, "L"},
    {RESERVING, D_INVALID, X, "E"},
    {RESERVING, D_NEVER, X, "E"},
    {RESERVING, D_DEADLINE, X, "E"},
    {RESERVING, P_OK, V, ""},
    {RESERVING, P_LINK, V, ""},
    {RESERVING, P_BUSY, V, ""},
    {RESERVING, P_PREEMPTED, V, ""},
    {RESERVING, P_TRANSFER, V, ""},
    {RESERVING, P_INVALID, V, ""},
    {RESERVING, P_DEADLINE, V, ""},
    {RESERVING, END, X, "CE"},

    {RESERVINGL, ACCEPTED, D, ""},
    {RESERVINGL, ACCEPTED_SHORT, D, ""},
    {RESERVINGL, REJECTED_BUSY, Q, "L"},
    {RESERVINGL, REJECTED_ELSEWHERE, Q, "R"},
    {RESERVINGL, REJECTED_INCOMPATIBLE, Q, "L"},
    {RESERVINGL, REJECTED_NEVER, X, "E"},
    {RESERVINGL, REJECTED_INVALID, X, "E"},
    {RESERVINGL, TOKEN_D, V, ""},
    {RESERVINGL, TOKEN_P, V, ""},
    {RESERVINGL, TOKEN_SKIPPED, Q, "CR"},
    {RESERVINGL, TOKEN_NONSENSE, Q, "CR"},
    {RESERVINGL, FINISH, X, "CE"},
    {RESERVINGL, FINISH_NONSENSE, Q, "CR"},
    {RESERVINGL, STOP, X, "CE"},
    {RESERVINGL, D_OK, Q, "R"},
    {RESERVINGL, D_LINK, Q, "R"},
    {RESERVINGL, D_CANCELLED, Q, "R"},
    {RESERVINGL, D_PREEMPTED, Q, "R"},
    {RESERVINGL, D_BUSY, Q, "L"},
    {RESERVINGL, D_INVALID, X, "E"},
    {RESERVINGL, D_NEVER, X, "E"},
    {RESERVINGL, D_DEADLINE, X, "E"},
    {RESERVINGL, P_OK, V, ""},
    {RESERVINGL, P_LINK, V, ""},
    {RESERVINGL, P_BUSY, V, ""},
    {RESERVINGL, P_PREEMPTED, V, ""},
    {RESERVINGL, P_TRANSFER, V, ""},
    {RESERVINGL, P_INVALID, V, ""},
    {RESERVINGL, P_DEADLINE, V, ""},
    {RESERVINGL, END, X, "CE"},

    {FILLING, ACCEPTED, F, ""},
    {FILLING, ACCEPTED_SHORT, F, ""},
    {FILLING, REJECTED_BUSY, F, ""},
    {FILLING, REJECTED_ELSEWHERE, F, ""},
    {FILLING, REJECTED_INCOMPATIBLE, F, ""},
    {FILLING, REJECTED_NEVER, F, ""},
    {FILLING, REJECTED_INVALID, F, ""},
    {FILLING, TOKEN_D, F, ""},
    {FILLING, TOKEN_P, F, ""},
    {FILLING, TOKEN_SKIPPED, Q, "CcR"},
    {FILLING, TOKEN_NONSENSE, Q, "CcR"},
    {FILLING, FINISH, X, "CcE"},
    {FILLING, FINISH_NONSENSE, Q, "CcR"},
    {FILLING, STOP, X, "CcE"},
    {FILLING, D_OK, Q, "cR"},
    {FILLING, D_LINK, Q, "cR"},
    {FILLING, D_CANCELLED, Q, "cR"},
    {FILLING, D_PREEMPTED, Q, "cR"},
    {FILLING, D_BUSY, Q, "cL"},
    {FILLING, D_INVALID, X, "cE"},
    {FILLING, D_NEVER, X, "cE"},
    {FILLING, D_DEADLINE, X, "cE"},
    {FILLING, P_OK, D, ""},
    {FILLING, P_LINK, F, "K"},
    {FILLING, P_BUSY, F, "K"},
    {FILLING, P_PREEMPTED, F, "K"},
    {FILLING, P_TRANSFER, F, "K"},
    {FILLING, P_INVALID, X, "CE"},
    {FILLING, P_DEADLINE, X, "CE"},
    {FILLING, END, X, "CcE"},

    {FILLING_FLOWING, ACCEPTED, F, ""},
    {FILLING_FLOWING, ACCEPTED_SHORT, F, ""},
    {FILLING_FLOWING, REJECTED_BUSY, F, ""},
    {FILLING_FLOWING, REJECTED_ELSEWHERE, F, ""},
    {FILLING_FLOWING, REJECTED_INCOMPATIBLE, F, ""},
    {FILLING_FLOWING, REJECTED_NEVER, F, ""},
    {FILLING_FLOWING, REJECTED_INVALID, F, ""},
    {FILLING_FLOWING, TOKEN_D, F, ""},
    {FILLING_FLOWING, TOKEN_P, F, ""},
    {FILLING_FLOWING, TOKEN_SKIPPED, Q, "CcR"},
    {FILLING_FLOWING, TOKEN_NONSENSE, Q, "CcR"},
    {FILLING_FLOWING, FINISH, X, "CcE"},
    {FILLING_FLOWING, FINISH_NONSENSE, Q, "CcR"},
    {FILLING_FLOWING, STOP, X, "CcE"},
    {FILLING_FLOWING, D_OK, Q, "cR"},
    {FILLING_FLOWING, D_LINK, Q, "cR"},
    {FILLING_FLOWING, D_CANCELLED, Q, "cR"},
    {FILLING_FLOWING, D_PREEMPTED, Q, "cR"},
    {FILLING_FLOWING, D_BUSY, Q, "cL"},
    {FILLING_FLOWING, D_INVALID, X, "cE"},
    {FILLING_FLOWING, D_NEVER, X, "cE"},
    {FILLING_FLOWING, D_DEADLINE, X, "cE"},
    {FILLING_FLOWING, P_OK, D, ""},
    {FILLING_FLOWING, P_LINK, D, ""}, /* D has all the KV that it needs */
    {FILLING_FLOWING, P_BUSY, D, ""},
    {FILLING_FLOWING, P_PREEMPTED, D, ""},
    {FILLING_FLOWING, P_TRANSFER, D, ""},
    {FILLING_FLOWING, P_INVALID, D, ""},
    {FILLING_FLOWING, P_DEADLINE, D, ""},
    {FILLING_FLOWING, END, X, "CcE"},

    {FILLING_NO_P, ACCEPTED, F, ""},
    {FILLING_NO_P, ACCEPTED_SHORT, F, ""},
    {FILLING_NO_P, REJECTED_BUSY, F, ""},
    {FILLING_NO_P, REJECTED_ELSEWHERE, F, ""},
    {FILLING_NO_P, REJECTED_INCOMPATIBLE, F, ""},
    {FILLING_NO_P, REJECTED_NEVER, F, ""},
    {FILLING_NO_P, REJECTED_INVALID, F, ""},
    {FILLING_NO_P, P_PICKED, F, "s"},
    {FILLING_NO_P, NO_P, D, "H"},
    {FILLING_NO_P, TOKEN_D, F, ""},
    {FILLING_NO_P, TOKEN_P, F, ""},
    {FILLING_NO_P, TOKEN_SKIPPED, Q, "CR"},
    {FILLING_NO_P, TOKEN_NONSENSE, Q, "CR"},
    {FILLING_NO_P, FINISH, X, "CE"},
    {FILLING_NO_P, FINISH_NONSENSE, Q, "CR"},
    {FILLING_NO_P, STOP, X, "CE"},
    {FILLING_NO_P, D_OK, Q, "R"},
    {FILLING_NO_P, D_LINK, Q, "R"},
    {FILLING_NO_P, D_CANCELLED, Q, "R"},
    {FILLING_NO_P, D_PREEMPTED, Q, "R"},
    {FILLING_NO_P, D_BUSY, Q, "L"},
    {FILLING_NO_P, D_INVALID, X, "E"},
    {FILLING_NO_P, D_NEVER, X, "E"},
    {FILLING_NO_P, D_DEADLINE, X, "E"},
    {FILLING_NO_P, P_OK, F, ""},
    {FILLING_NO_P, P_LINK, F, ""},
    {FILLING_NO_P, P_BUSY, F, ""},
    {FILLING_NO_P, P_PREEMPTED, F, ""},
    {FILLING_NO_P, P_TRANSFER, F, ""},
    {FILLING_NO_P, P_INVALID, F, ""},
    {FILLING_NO_P, P_DEADLINE, F, ""},
    {FILLING_NO_P, END, X, "CE"},

    {DECODING, ACCEPTED, D, ""},
    {DECODING, ACCEPTED_SHORT, D, ""},
    {DECODING, REJECTED_BUSY, D, ""},
    {DECODING, REJECTED_ELSEWHERE, D, ""},
    {DECODING, REJECTED_INCOMPATIBLE, D, ""},
    {DECODING, REJECTED_NEVER, D, ""},
    {DECODING, REJECTED_INVALID, D, ""},
    {DECODING, TOKEN_D, D, ""},
    {DECODING, TOKEN_P, D, ""},
    {DECODING, TOKEN_SKIPPED, Q, "CR"},
    {DECODING, TOKEN_NONSENSE, Q, "CR"},
    {DECODING, FINISH, X, "CE"},
    {DECODING, FINISH_NONSENSE, Q, "CR"},
    {DECODING, STOP, X, "CE"},
    {DECODING, D_OK, Q, "R"},
    {DECODING, D_LINK, Q, "R"},
    {DECODING, D_CANCELLED, Q, "R"},
    {DECODING, D_PREEMPTED, Q, "R"},
    {DECODING, D_BUSY, Q, "L"},
    {DECODING, D_INVALID, X, "E"},
    {DECODING, D_NEVER, X, "E"},
    {DECODING, D_DEADLINE, X, "E"},
    {DECODING, P_OK, D, ""},
    {DECODING, P_LINK, D, ""},
    {DECODING, P_BUSY, D, ""},
    {DECODING, P_PREEMPTED, D, ""},
    {DECODING, P_TRANSFER, D, ""},
    {DECODING, P_INVALID, D, ""},
    {DECODING, P_DEADLINE, D, ""},
    {DECODING, END, X, "CE"},
};

static bool asserts(enum at at, enum what what)
{
    return (what == ADMIT && at != QUEUED) ||
           ((what == P_PICKED || what == NO_P) && at != FILLING_NO_P);
}

Test(request, table)
{
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        const struct row *w = &rows[i];
        struct request r;
        stand(&r, w->at);
        apply(&r, w->what);
        cr_assert_eq(r.state, w->state, "%s, event %d: state %d, expected %d", at_names[w->at],
                     w->what, r.state, w->state);
        const char *actions = actions_of(&r);
        cr_assert_str_eq(actions, w->actions, "%s, event %d: \"%s\", expected \"%s\"",
                         at_names[w->at], w->what, actions, w->actions);
        /* Back in the queue nothing is held anywhere; at the end neither. */
        if (r.state == Q || r.state == X)
            cr_assert(!r.d_live && !r.p_live, "%s, event %d", at_names[w->at], w->what);
        request_fini(&r);
    }
}

Test(request, the_table_is_complete)
{
    static int seen[PLACES][WHATS];
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
        seen[rows[i].at][rows[i].what]++;
    for (int a = 0; a < DONE; a++)
        for (int w = 0; w < WHATS; w++)
            cr_assert_eq(seen[a][w], asserts((enum at)a, (enum what)w) ? 0 : 1, "%s, event %d",
                         at_names[a], w);
}

Test(request, done_stays_done)
{
    for (int w = 0; w < WHATS; w++) {
        if (asserts(DONE, (enum what)w))
            continue;
        struct request r;
        stand(&r, DONE);
        apply(&r, (enum what)w);
        cr_assert_eq(r.state, X, "event %d", w);
        cr_assert_str_eq(actions_of(&r), "", "event %d", w);
        cr_assert_eq(r.end_status, ST_CANCELLED, "event %d", w);
        request_fini(&r);
    }
}

Test(request, what_has_not_begun_is_dropped_at_the_end)
{
    /* Both in one turn of the core: P is lost and the client has gone. */
    struct request r;
    stand(&r, FILLING);
    apply(&r, P_LINK);
    apply(&r, END);
    cr_assert_str_eq(actions_of(&r), "CE");
    request_fini(&r);
    stand(&r, RESERVING);
    apply(&r, ACCEPTED);
    apply(&r, END);
    cr_assert_str_eq(actions_of(&r), "CcE");
    request_fini(&r);
    stand(&r, RESERVING);
    apply(&r, ACCEPTED_SHORT);
    apply(&r, D_LINK);
    cr_assert_str_eq(actions_of(&r), "R");
    request_fini(&r);
    stand(&r, FILLING);
    apply(&r, D_LINK);
    apply(&r, STOP); /* the last choice was stopped meanwhile: it must not wait in the queue */
    cr_assert_str_eq(actions_of(&r), "cRE");
    request_fini(&r);
}

Test(request, a_token_is_said_once)
{
    struct request r;
    stand(&r, FILLING);
    struct msg_token t = {.id = 5};
    cr_assert_eq(request_on_token(&r, &t, false, 1), REQUEST_EMIT);
    cr_assert_eq(request_on_token(&r, &t, true, 1), REQUEST_SEEN);
    cr_assert_eq(request_on_token(&r, &t, false, 1), REQUEST_SEEN);
    t.position = 1;
    t.id = 6;
    cr_assert_eq(request_on_token(&r, &t, true, 1), REQUEST_EMIT);
    cr_assert_eq(r.choices[0].n, 2);
    t.position = 0;
    cr_assert_eq(request_on_token(&r, &t, true, 1), REQUEST_CONFLICT);
    cr_assert_str_eq(actions_of(&r), "CcR");
    cr_assert_eq(r.choices[0].n, 2, "what was said stays said");
    cr_assert_eq(request_on_token(&r, &t, true, 1), REQUEST_SEEN, "queued: late words");
    request_fini(&r);
}

Test(request, choices_end_one_by_one)
{
    struct request r;
    cr_assert_eq(request_init(&r, 3, 0), ST_OK);
    request_admit(&r, true, 1);
    apply(&r, ACCEPTED);
    actions_of(&r);
    struct msg_finish f = {.choice = 1, .reason = MSG_FINISH_STOP, .stop_id = 4};
    cr_assert(request_on_finish(&r, &f, 2));
    cr_assert_not(request_on_finish(&r, &f, 2), "twice");
    cr_assert_eq(r.choices[1].stop_id, 4);
    struct msg_token t = {.choice = 1, .position = 0, .id = 9};
    cr_assert_eq(request_on_token(&r, &t, true, 2), REQUEST_SEEN, "after its finish");
    request_stop_choice(&r, 0, 2);
    request_stop_choice(&r, 0, 2);
    f.choice = 0;
    cr_assert_not(request_on_finish(&r, &f, 2), "D says so after the router did");
    cr_assert_eq(r.state, REQUEST_DECODING);
    f.choice = 2;
    cr_assert(request_on_finish(&r, &f, 2));
    cr_assert_eq(r.state, REQUEST_DONE);
    cr_assert_eq(r.end_status, ST_OK);
    cr_assert_str_eq(actions_of(&r), "CE");
    request_fini(&r);
}

/* Loses a node under the request n times and admits it again; how often it came back. */
static int survive(struct request *r, enum what loss, int n)
{
    for (int i = 0; i < n; i++) {
        if (r->state == REQUEST_QUEUED)
            request_admit(r, true, 1);
        actions_of(r);
        apply(r, loss);
        actions_of(r);
        if (r->state == REQUEST_DONE)
            return i;
    }
    return n;
}

Test(request, three_deaths_are_poison)
{
    struct request r;
    stand(&r, QUEUED);
    cr_assert_eq(survive(&r, D_LINK, 10), REQUEST_DEATHS_MAX - 1);
    cr_assert_eq(r.end_status, ST_INTERNAL);
    request_fini(&r);
    stand(&r, QUEUED);
    cr_assert_eq(survive(&r, D_OK, 10), REQUEST_DEATHS_MAX - 1, "a stream without a finish");
    request_fini(&r);
    stand(&r, QUEUED);
    cr_assert_eq(survive(&r, TOKEN_NONSENSE, 10), REQUEST_DEATHS_MAX - 1);
    request_fini(&r);
}

Test(request, preemption_and_busy_nodes_are_not_poison)
{
    struct request r;
    stand(&r, QUEUED);
    cr_assert_eq(survive(&r, D_PREEMPTED, 500), 500);
    cr_assert_eq(survive(&r, D_BUSY, 500), 500);
    cr_assert_eq(survive(&r, REJECTED_BUSY, 500), 500);
    cr_assert_eq(r.deaths, 0);
    cr_assert_eq(survive(&r, D_CANCELLED, 500), 8 * REQUEST_DEATHS_MAX - 1,
                 "links that break for no reason are bounded all the same");
    request_fini(&r);
}

Test(request, deaths_of_prefill_nodes_count_too)
{
    struct request r;
    stand(&r, FILLING);
    for (int i = 1; i < REQUEST_DEATHS_MAX; i++) {
        apply(&r, P_LINK);
        cr_assert_str_eq(actions_of(&r), "K");
        request_p_picked(&r);
        cr_assert_str_eq(actions_of(&r), "s");
    }
    apply(&r, P_LINK);
    cr_assert_str_eq(actions_of(&r), "CE");
    cr_assert_eq(r.end_status, ST_INTERNAL);
    request_fini(&r);
}
