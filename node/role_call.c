#include "node/role_call.h"

#include <assert.h>
#include <string.h>

/* ---- tokens ---- */

void said_set(struct said *s, const struct msg_token *t)
{
    assert(t->n_top <= MSG_LOGPROBS_MAX);
    s->token = *t;
    if (t->n_top > 0)
        memcpy(s->top, t->top, t->n_top * sizeof(*t->top));
}

struct msg_token said_get(const struct said *s)
{
    struct msg_token t = s->token;
    t.top = s->top;
    return t;
}

/* ---- the role ---- */

enum status role_base_init(struct role_base *b, const struct node_role_args *args,
                           size_t call_bytes, struct error *err)
{
    b->args = *args;
    list_init(&b->compiling);
    b->calls = slots_create((size_t)args->max_calls, call_bytes);
    if (!b->calls)
        return err_set(err, ST_NO_MEMORY, "no memory for %d calls", args->max_calls);
    if (args->metrics)
        b->m_quiet = metrics_histogram(args->metrics, "baton_cancel_to_quiet_seconds", "",
                                       "From a call's being cancelled to all it held being free.",
                                       metrics_latency_bounds, metrics_latency_bounds_n);
    return ST_OK;
}

void role_base_fini(struct role_base *b)
{
    if (b->calls)
        slots_destroy(b->calls);
    buf_fini(&b->out);
}

static struct role_base *base_of(struct role *r)
{
    return (struct role_base *)r;
}

void role_set_engine(struct role *r, struct engine *e)
{
    base_of(r)->engine = e;
}

void *role_on_open(struct role *r, void *rpc, int64_t now_ns, int64_t deadline_ns)
{
    struct role_base *b = base_of(r);
    slot_id id;
    b->now_ns = now_ns;
    struct role_call *c = slots_alloc(b->calls, &id);
    if (!c)
        return NULL;
    c->id = id;
    list_init(&c->compiling);
    c->rpc = rpc;
    c->opened_ns = now_ns;
    c->deadline_ns = deadline_ns;
    if (deadline_ns == NS_NEVER && b->args.request_ns > 0)
        c->deadline_ns = now_ns + b->args.request_ns;
    return role_user_of(c);
}

void role_drain(struct role *r, bool final)
{
    struct role_base *b = base_of(r);
    b->draining = true;
    for (slot_id id = slots_next(b->calls, 0); final && id; id = slots_next(b->calls, id))
        role_fail(slots_get(b->calls, id), ST_PREEMPTED, "the node is shutting down");
}

void role_load(const struct role *r, struct node_role_load *out)
{
    out->calls = (int32_t)slots_count(((const struct role_base *)r)->calls);
}

void role_on_failed(void *role, void *user, enum status status, const char *why)
{
    struct role_call *c = role_call_of(role, user);
    if (c)
        role_fail(c, status, why);
}

/* ---- its calls ---- */

void *role_call_of(struct role_base *b, void *user)
{
    return slots_get(b->calls, (slot_id)(uintptr_t)user);
}

void *role_user_of(const struct role_call *c)
{
    return (void *)(uintptr_t)c->id;
}

void role_call_begin(const struct role_base *b, struct role_call *c, const char *request_id,
                     int64_t deadline_ms)
{
    c->spoken = true;
    strncpy(c->request_id, request_id ? request_id : "", MSG_REQUEST_ID_MAX);
    if (deadline_ms > 0 && deadline_ms < (c->deadline_ns - b->now_ns) / NS_PER_MS)
        c->deadline_ns = b->now_ns + deadline_ms * NS_PER_MS;
}

void role_fail(struct role_call *c, enum status status, const char *text)
{
    if (c->failure != ST_OK)
        return;
    c->failure = status;
    c->failure_text = text;
}

void role_check_time(struct role_call *c, int64_t now_ns)
{
    if (now_ns >= c->deadline_ns)
        role_fail(c, ST_DEADLINE, "the request's time is up");
    else if (!c->spoken && now_ns - c->opened_ns >= NODE_OPEN_NS)
        role_fail(c, ST_DEADLINE, "no request came");
}

/* ---- those whose grammar is compiled ---- */

static struct role_call *compiling_of(struct list *link)
{
    return list_entry(link, struct role_call, compiling);
}

/* The oldest call's grammar comes next. */
static void compile_next(struct role_base *b)
{
    while (!b->draft_is_out && !list_empty(&b->compiling)) {
        struct role_call *c = compiling_of(b->compiling.next);
        struct grammar_draft *draft = grammars_draft(engine_grammars(b->engine), c->grammar);
        if (!draft) {
            role_compile_leave(c);
            role_fail(c, ST_NO_MEMORY, "no memory for a grammar");
            continue;
        }
        b->draft_is_out = true;
        b->args.effects.compile(b->args.effects.ctx, draft);
    }
}

void role_compile(struct role_base *b, struct role_call *c, const struct msg_grammar *what)
{
    c->grammar = what;
    list_push_back(&b->compiling, &c->compiling);
    compile_next(b);
}

void role_compile_leave(struct role_call *c)
{
    list_remove(&c->compiling);
    c->grammar = NULL;
}

void role_on_compiled(struct role *r, struct grammar_draft *draft, int64_t now_ns)
{
    struct role_base *b = base_of(r);
    struct grammars *grammars = engine_grammars(b->engine);
    const struct error why = *grammar_draft_error(draft);
    struct list done;
    b->now_ns = now_ns;
    b->draft_is_out = false;
    list_init(&done);
    list_for_each_safe(it, next, &b->compiling)
    {
        if (!grammar_draft_is(draft, compiling_of(it)->grammar))
            continue;
        list_remove(it);
        list_push_back(&done, it);
    }
    /* Taken meanwhile, so that it is there for all of them. */
    struct grammar_use *use = NULL;
    if (why.status == ST_OK)
        use = grammars_enter(grammars, draft);
    else
        grammar_draft_free(draft);
    while (!list_empty(&done)) {
        struct role_call *c = compiling_of(done.next);
        role_compile_leave(c);
        if (c->failure == ST_OK)
            b->go_on(r, c, use ? NULL : &why);
    }
    grammars_give(grammars, use);
    compile_next(b);
}

/* ---- what they say ---- */

enum status role_send(struct role_base *b, struct role_call *c)
{
    if (b->out.failed)
        return ST_NO_MEMORY;
    return b->args.effects.send(b->args.effects.ctx, c->rpc, &b->out);
}

void role_finish(struct role_base *b, struct role_call *c, enum status status, const char *text)
{
    assert(!c->finish_sent);
    c->finish_sent = true;
    b->args.effects.finish(b->args.effects.ctx, c->rpc, status, text);
}

void role_observe_quiet(struct role_base *b, const struct role_call *c, int64_t closed_ns)
{
    if (b->m_quiet && !c->finish_sent)
        metric_observe(b->m_quiet, (double)(b->now_ns - closed_ns) / 1e9);
}
