#include "node/transfer.h"

#include <assert.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>

#include "base/ring.h"

#define COMMANDS 16384

enum command_kind { CMD_EXPECT, CMD_FORGET, CMD_OPEN, CMD_LAYER, CMD_FILL, CMD_CLOSE, CMD_STOP };

/* `memory` holds what the pointers of plan, send and first point to; the thread frees it. */
struct command {
    enum command_kind kind;
    uint64_t user;
    int32_t layer, tokens;
    uint32_t n_first;
    void *memory;
};

/* One allocation per plan or send: the struct, then its arrays. */
struct expect_memory {
    struct mover_plan plan;
    int32_t blocks[];
};

struct open_memory {
    struct mover_send send;
    struct msg_rank_address ranks[MSG_RANKS_MAX];
    int32_t blocks[];
};

struct transfer {
    struct mover *mover;
    struct mover_args args;
    struct ring *commands, *events;
    pthread_t thread;
    pthread_mutex_t stats_lock;
    struct mover_stats stats;
    bool stopping;
};

static void push_event(struct transfer *t, const struct mover_event *ev)
{
    /* The ring has room for all that plans and offerings can ever report. */
    bool pushed = ring_push(t->events, ev);
    assert(pushed);
    (void)pushed;
}

static void push_quiet(struct transfer *t, uint64_t user)
{
    push_event(t, &(struct mover_event){.kind = MOVER_QUIET, .user = user});
}

static void run_command(struct transfer *t, const struct command *c, int64_t now_ns)
{
    enum status st = ST_OK;
    switch (c->kind) {
    case CMD_EXPECT:
        st = mover_expect(t->mover, &((struct expect_memory *)c->memory)->plan);
        break;
    case CMD_OPEN:
        st = mover_open(t->mover, &((struct open_memory *)c->memory)->send, now_ns);
        break;
    case CMD_FORGET: /* one that could not be made is quiet */
        if (!mover_forget(t->mover, c->user))
            push_quiet(t, c->user);
        break;
    case CMD_CLOSE:
        if (!mover_close(t->mover, c->user))
            push_quiet(t, c->user);
        break;
    case CMD_LAYER:
        mover_layer_ready(t->mover, c->user, c->layer, c->tokens);
        break;
    case CMD_FILL:
        mover_fill(t->mover, c->user, c->memory, c->n_first, now_ns);
        break;
    case CMD_STOP:
        t->stopping = true;
        break;
    }
    free(c->memory);
    if (st != ST_OK)
        push_event(t, &(struct mover_event){.kind = MOVER_FAILED, .user = c->user, .status = st});
}

static void sleep_until_work(struct transfer *t)
{
    struct pollfd fds[1 + MOVER_TRANSPORTS_MAX];
    int n = 0;
    fds[n++] = (struct pollfd){.fd = ring_fd(t->commands), .events = POLLIN};
    for (int32_t i = 0; i < t->args.n_transports; i++) {
        struct transport *tr = t->args.transports[i];
        if (!tr->ops->arm(tr))
            return;
        fds[n++] = (struct pollfd){.fd = tr->ops->fd(tr), .events = POLLIN};
    }
    int64_t wake = mover_wake_ns(t->mover), now = clock_now_ns();
    int timeout_ms = -1;
    if (wake != NS_NEVER) {
        int64_t ms = wake > now ? (wake - now + NS_PER_MS - 1) / NS_PER_MS : 0;
        timeout_ms = ms > 60000 ? 60000 : (int)ms;
    }
    poll(fds, (nfds_t)n, timeout_ms);
}

static void *transfer_main(void *arg)
{
    struct transfer *t = arg;
    while (!t->stopping) {
        int64_t now = clock_now_ns();
        struct command c;
        struct mover_event ev;
        bool any = false;
        ring_clear(t->commands);
        for (int i = 0; i < 256 && ring_pop(t->commands, &c); i++) {
            run_command(t, &c, now);
            any = true;
        }
        any |= mover_work(t->mover, now);
        while (mover_next(t->mover, &ev)) {
            push_event(t, &ev);
            any = true;
        }
        pthread_mutex_lock(&t->stats_lock);
        mover_get_stats(t->mover, &t->stats);
        pthread_mutex_unlock(&t->stats_lock);
        if (!any)
            sleep_until_work(t);
    }
    mover_destroy(t->mover);
    return NULL;
}

enum status transfer_start(struct mover *m, const struct mover_args *args, struct transfer **out,
                           struct error *err)
{
    struct transfer *t = calloc(1, sizeof(*t));
    if (!t)
        return err_set(err, ST_NO_MEMORY, "no memory for the transfer thread");
    t->mover = m;
    t->args = *args;
    t->commands = ring_create(COMMANDS, sizeof(struct command));
    t->events = ring_create(4 * (size_t)(args->max_plans + args->max_offerings) + 64,
                            sizeof(struct mover_event));
    pthread_mutex_init(&t->stats_lock, NULL);
    if (t->commands && t->events && pthread_create(&t->thread, NULL, transfer_main, t) == 0) {
        *out = t;
        return ST_OK;
    }
    if (t->commands)
        ring_destroy(t->commands);
    if (t->events)
        ring_destroy(t->events);
    free(t);
    return err_set(err, ST_NO_MEMORY, "the transfer thread could not be started");
}

static void give(struct transfer *t, const struct command *c)
{
    while (!ring_push(t->commands, c))
        sched_yield();
}

void transfer_stop(struct transfer *t)
{
    if (!t)
        return;
    give(t, &(struct command){.kind = CMD_STOP});
    pthread_join(t->thread, NULL);
    struct command c;
    while (ring_pop(t->commands, &c))
        free(c.memory);
    ring_destroy(t->commands);
    ring_destroy(t->events);
    pthread_mutex_destroy(&t->stats_lock);
    free(t);
}

/* Out of memory for a copy: the same answer as a mover that has none. */
static void refuse(struct transfer *t, uint64_t user)
{
    push_event(t,
               &(struct mover_event){.kind = MOVER_FAILED, .user = user, .status = ST_NO_MEMORY});
}

void transfer_expect(struct transfer *t, const struct mover_plan *plan)
{
    const struct kv_layout *l = &t->args.pool.layout;
    const struct kv_blocks_view from = {plan->blocks, plan->n_blocks, 0, plan->stride};
    size_t blocks = kv_blocks_bytes(l, plan->n_blocks);
    struct expect_memory *m = malloc(sizeof(*m) + blocks);
    if (!m) {
        refuse(t, plan->user);
        return;
    }
    m->plan = *plan;
    m->plan.blocks = m->blocks;
    m->plan.stride = plan->n_blocks;
    kv_blocks_copy(l, m->blocks, &from);
    give(t, &(struct command){.kind = CMD_EXPECT, .user = plan->user, .memory = m});
}

void transfer_forget(struct transfer *t, uint64_t user)
{
    give(t, &(struct command){.kind = CMD_FORGET, .user = user});
}

/* Copies a text or bytes behind the struct. */
static const void *stow(char **at, const void *data, size_t bytes)
{
    char *to = *at;
    if (bytes > 0)
        memcpy(to, data, bytes);
    *at += bytes;
    return to;
}

void transfer_open(struct transfer *t, const struct mover_send *send)
{
    assert(send->n_ranks <= MSG_RANKS_MAX);
    const struct kv_layout *l = &t->args.pool.layout;
    const struct kv_blocks_view from = {send->blocks, send->n_blocks, 0, send->stride};
    size_t blocks = kv_blocks_bytes(l, send->n_blocks), text = 0;
    for (int32_t i = 0; i < send->n_ranks; i++) {
        const struct msg_rank_address *a = &send->ranks[i];
        text += strlen(a->host ? a->host : "") + strlen(a->shm ? a->shm : "") + 2 + a->ucx_bytes;
    }
    struct open_memory *m = malloc(sizeof(*m) + blocks + text);
    if (!m) {
        refuse(t, send->user);
        return;
    }
    m->send = *send;
    m->send.blocks = m->blocks;
    m->send.stride = send->n_blocks;
    kv_blocks_copy(l, m->blocks, &from);
    m->send.ranks = m->ranks;
    char *at = (char *)m->blocks + blocks;
    for (int32_t i = 0; i < send->n_ranks; i++) {
        const struct msg_rank_address *a = &send->ranks[i];
        const char *host = a->host ? a->host : "", *shm = a->shm ? a->shm : "";
        m->ranks[i] = *a;
        m->ranks[i].host = stow(&at, host, strlen(host) + 1);
        m->ranks[i].shm = stow(&at, shm, strlen(shm) + 1);
        m->ranks[i].ucx = stow(&at, a->ucx, a->ucx_bytes);
    }
    give(t, &(struct command){.kind = CMD_OPEN, .user = send->user, .memory = m});
}

void transfer_layer(struct transfer *t, uint64_t user, int32_t layer, int32_t tokens)
{
    give(t, &(struct command){.kind = CMD_LAYER, .user = user, .layer = layer, .tokens = tokens});
}

void transfer_fill(struct transfer *t, uint64_t user, const struct msg_token *first, uint32_t n)
{
    const struct msg_token *tokens;
    void *copy = wire_copy_tokens(first, n, &tokens);
    /* Without a copy the first tokens stay behind: the decode node then samples them again, the
     * same ones. */
    give(t, &(struct command){
                .kind = CMD_FILL, .user = user, .memory = copy, .n_first = copy ? n : 0});
}

void transfer_close(struct transfer *t, uint64_t user)
{
    give(t, &(struct command){.kind = CMD_CLOSE, .user = user});
}

int transfer_fd(const struct transfer *t)
{
    return ring_fd(t->events);
}

void transfer_clear(struct transfer *t)
{
    ring_clear(t->events);
}

bool transfer_next(struct transfer *t, struct mover_event *ev)
{
    return ring_pop(t->events, ev);
}

void transfer_stats(struct transfer *t, struct mover_stats *out)
{
    pthread_mutex_lock(&t->stats_lock);
    *out = t->stats;
    pthread_mutex_unlock(&t->stats_lock);
}
