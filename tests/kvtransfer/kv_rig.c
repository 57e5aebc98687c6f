#include "kvtransfer/kv_rig.h"

#include <assert.h>
#include <fcntl.h>
#include <math.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/rng.h"

#define MUST(x)                                                                                    \
    do {                                                                                           \
        if (!(x)) {                                                                                \
            fprintf(stderr, "%s:%d: rig: %s\n", __FILE__, __LINE__, #x);                           \
            abort();                                                                               \
        }                                                                                          \
    } while (0)

/* ---- pools ---- */

void rig_pool_open(struct rig_pool *p, const struct kv_layout *layout, int32_t head_base)
{
    struct error err = {0};
    MUST(shm_pool_create(&p->memory, kv_pool_bytes(layout), &err) == ST_OK);
    memset(p->memory.base, 0x55, p->memory.bytes);
    p->view =
        (struct kv_pool_view){.base = p->memory.base, .layout = *layout, .head_base = head_base};
}

void rig_pool_close(struct rig_pool *p)
{
    shm_pool_destroy(&p->memory);
}

void rig_blocks(int32_t *out, int32_t n, int32_t of, uint64_t seed)
{
    struct rng r = rng_seed(seed);
    int32_t *all = malloc(sizeof(*all) * (size_t)of);
    MUST(all && n <= of);
    for (int32_t i = 0; i < of; i++)
        all[i] = i;
    for (int32_t i = 0; i < n; i++) {
        int32_t k = i + (int32_t)rng_below(&r, (uint64_t)(of - i)), x = all[k];
        all[k] = all[i];
        out[i] = all[i] = x;
    }
    free(all);
}

static float truth(uint64_t salt, const int32_t at[4], int32_t element)
{
    uint64_t where =
        (uint64_t)at[0] << 48 ^ (uint64_t)at[1] << 40 ^ (uint64_t)at[2] << 24 ^ (uint64_t)element;
    return (float)((int32_t)(rng_hash(salt, where, (uint64_t)at[3], 0) % 7) - 3);
}

static void rig_put(char *vector, const struct kv_layout *l, uint64_t salt, const int32_t at[4])
{
    float x[RIG_HEAD_DIM];
    MUST(l->head_dim == l->value_dim && l->head_dim <= RIG_HEAD_DIM);
    for (int32_t e = 0; e < l->head_dim; e++)
        x[e] = truth(salt, at, e);
    kv_vector_narrow(vector, l->dtype, x, (size_t)l->head_dim);
}

int64_t rig_differs(const char *vector, const struct kv_layout *l, uint64_t salt,
                    const int32_t at[4])
{
    float x[RIG_HEAD_DIM];
    int64_t wrong = 0;
    MUST(l->head_dim == l->value_dim && l->head_dim <= RIG_HEAD_DIM);
    kv_vector_widen(x, vector, l->dtype, (size_t)l->head_dim);
    for (int32_t e = 0; e < l->head_dim; e++)
        wrong += !(fabsf(x[e] - truth(salt, at, e)) < 0.5f);
    return wrong;
}

/* Visits each vector of a range: writes the truth, or counts the elements that are not it. */
static int64_t visit(const struct kv_pool_view *p, const int32_t *blocks, const int32_t range[2],
                     uint64_t salt, bool write)
{
    const struct kv_layout *l = &p->layout;
    int64_t wrong = 0;
    for (int32_t layer = 0; layer < l->layers; layer++)
        for (int32_t part = 0; part < 2; part++)
            for (int32_t head = 0; head < l->kv_heads; head++)
                for (int32_t t = range[0]; t < range[1]; t++) {
                    char *at =
                        (char *)p->base + kv_offset(l, layer, blocks[t / l->block_tokens],
                                                    (enum kv_part)part, head, t % l->block_tokens);
                    const int32_t where[4] = {layer, part, head + p->head_base, t};
                    if (write)
                        rig_put(at, l, salt, where);
                    else
                        wrong += rig_differs(at, l, salt, where);
                }
    return wrong;
}

void rig_fill(const struct kv_pool_view *pool, const int32_t *blocks, int32_t tokens, uint64_t salt)
{
    const int32_t range[2] = {0, tokens};
    visit(pool, blocks, range, salt, true);
}

int64_t rig_wrong(const struct kv_pool_view *pool, const int32_t *blocks, const int32_t range[2],
                  uint64_t salt)
{
    return visit(pool, blocks, range, salt, false);
}

/* ---- sides ---- */

static struct msg_ticket ticket_of(const struct rig_job *job)
{
    return (struct msg_ticket){.w = {job->ticket, ~job->ticket}};
}

void rig_side_open(struct rig_side *s, const struct rig_job *job)
{
    struct error err = {0};
    memset(s, 0, sizeof(*s));
    rig_pool_open(&s->pool, &job->layout, job->head_base);
    s->n_blocks = (job->tokens + job->layout.block_tokens - 1) / job->layout.block_tokens;
    MUST(s->n_blocks <= RIG_BLOCKS);
    rig_blocks(s->blocks, s->n_blocks, job->layout.blocks, job->salt + (uint64_t)getpid());
    enum status st;
    if (job->way == RIG_SHM) {
        const struct transport_shm_args a = {.pool_fd = s->pool.memory.fd, .pool = s->pool.view};
        st = transport_shm_create(&a, &s->transport, &err);
    } else {
        const struct transport_ucx_args a = {.device = "", .keepalive_ns = 10 * NS_PER_S};
        st = transport_ucx_create(&a, &s->transport, &err);
    }
    if (st != ST_OK)
        fprintf(stderr, "rig: %s\n", err.text);
    MUST(st == ST_OK);
    const struct mover_args args = {.transports = {s->transport},
                                    .n_transports = 1,
                                    .pool = s->pool.view,
                                    .staging_buffers = job->staging ? job->staging : 8,
                                    .max_plans = 8,
                                    .max_offerings = 8,
                                    .window = 4};
    MUST(mover_create(&args, &s->mover, &err) == ST_OK);
}

void rig_side_close(struct rig_side *s)
{
    mover_destroy(s->mover);
    s->transport->ops->destroy(s->transport);
    rig_pool_close(&s->pool);
}

void rig_expect(struct rig_side *s, const struct rig_job *job, uint64_t user)
{
    const struct mover_plan plan = {.user = user,
                                    .ticket = ticket_of(job),
                                    .token_begin = job->have,
                                    .token_end = job->tokens,
                                    .blocks = s->blocks,
                                    .n_blocks = s->n_blocks};
    MUST(mover_expect(s->mover, &plan) == ST_OK);
}

void rig_offer(struct rig_side *s, const struct rig_job *job, const struct msg_rank_address *to,
               uint64_t user)
{
    int64_t now = clock_now_ns();
    const struct mover_send send = {.user = user,
                                    .ticket = ticket_of(job),
                                    .token_begin = job->have,
                                    .token_end = job->tokens,
                                    .blocks = s->blocks,
                                    .n_blocks = s->n_blocks,
                                    .ranks = to,
                                    .n_ranks = 1,
                                    .deadline_ns = now + job->deadline_ns};
    MUST(mover_open(s->mover, &send, now) == ST_OK);
}

static void sleep_on(struct rig_side *s, int64_t until_ns)
{
    const struct transport_ops *ops = s->transport->ops;
    int64_t now = clock_now_ns(), wake = mover_wake_ns(s->mover);
    if (!ops->arm(s->transport))
        return;
    if (wake > until_ns)
        wake = until_ns;
    struct pollfd fd = {.fd = ops->fd(s->transport), .events = POLLIN};
    poll(&fd, 1, wake > now ? (int)((wake - now) / NS_PER_MS) + 1 : 0);
}

bool rig_next(struct rig_side *s, struct mover_event *ev, int64_t for_ns)
{
    int64_t until = clock_now_ns() + for_ns;
    while (clock_now_ns() < until) {
        bool any = mover_work(s->mover, clock_now_ns());
        if (mover_next(s->mover, ev))
            return true;
        if (!any)
            sleep_on(s, until);
    }
    return false;
}

/* ---- the other process ---- */

struct wire_address {
    char host[256], shm[64];
    uint8_t ucx[256];
    uint32_t ucx_bytes;
    int32_t head_begin, head_end;
};

void rig_address_give(int fd, struct mover *m)
{
    struct msg_rank_address a;
    struct error err = {0};
    struct wire_address w = {0};
    MUST(mover_address(m, &a, &err) == ST_OK);
    MUST(a.ucx_bytes <= sizeof(w.ucx));
    snprintf(w.host, sizeof(w.host), "%s", a.host);
    snprintf(w.shm, sizeof(w.shm), "%s", a.shm);
    if (a.ucx_bytes > 0)
        memcpy(w.ucx, a.ucx, a.ucx_bytes);
    w.ucx_bytes = a.ucx_bytes;
    w.head_begin = a.head_begin;
    w.head_end = a.head_end;
    MUST(write(fd, &w, sizeof(w)) == (ssize_t)sizeof(w));
}

void rig_address_take(int fd, struct msg_rank_address *out)
{
    static struct wire_address w;
    struct pollfd p = {.fd = fd, .events = POLLIN};
    MUST(poll(&p, 1, 20000) == 1);
    MUST(read(fd, &w, sizeof(w)) == (ssize_t)sizeof(w));
    *out = (struct msg_rank_address){.host = w.host,
                                     .shm = w.shm,
                                     .ucx = w.ucx,
                                     .ucx_bytes = w.ucx_bytes,
                                     .head_begin = w.head_begin,
                                     .head_end = w.head_end};
}

static bool child_start(struct rig_child *c, int *theirs)
{
    int fds[2];
    MUST(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, fds) == 0);
    pid_t parent = getpid();
    c->pid = fork();
    MUST(c->pid >= 0);
    if (c->pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (getppid() != parent)
            _exit(1);
        close(fds[0]);
        *theirs = fds[1];
        return true;
    }
    close(fds[1]);
    c->fd = fds[0];
    return false;
}

/* Works until the handoff is over, suffering what the job says on the way; then goes on serving
 * until the parent hangs up. */
static void child_run(struct rig_side *s, const struct rig_job *job, int fd, bool sending)
{
    int64_t begin = clock_now_ns(), until = begin + 60 * NS_PER_S;
    int32_t ready = 0, layers = job->layout.layers;
    bool over = false, stopped = false;
    struct mover_event ev;
    while (clock_now_ns() < until) {
        int64_t now = clock_now_ns();
        while (sending && ready < layers &&
               (job->ready_every_ns == 0 || now - begin >= ready * job->ready_every_ns)) {
            mover_layer_ready(s->mover, 1, ready++, job->tokens);
            if (ready == layers)
                mover_fill(s->mover, 1, NULL, 0, now);
        }
        bool any = mover_work(s->mover, now);
        struct mover_stats stats;
        mover_get_stats(s->mover, &stats);
        int64_t moved = stats.bytes_in + stats.bytes_out;
        if (job->die_at_bytes && moved >= job->die_at_bytes)
            kill(getpid(), SIGKILL);
        if (job->stop_at_bytes && moved >= job->stop_at_bytes && !stopped) {
            stopped = true;
            raise(SIGSTOP);
        }
        if (!over && mover_next(s->mover, &ev)) {
            const int32_t range[2] = {job->have, job->tokens};
            struct rig_result r = {.kind = (int32_t)ev.kind, .status = ev.status};
            r.wrong = sending ? 0 : rig_wrong(&s->pool.view, s->blocks, range, job->salt);
            r.stats = stats;
            over = true;
            MUST(write(fd, &r, sizeof(r)) == (ssize_t)sizeof(r));
        }
        struct pollfd p = {.fd = fd, .events = POLLIN};
        if (poll(&p, 1, 0) == 1) {
            char bye;
            if (read(fd, &bye, 1) <= 0)
                break;
        }
        if (!any)
            sleep_on(s, now + 20 * NS_PER_MS);
    }
}

void rig_child_receiver(struct rig_child *c, const struct rig_job *job)
{
    int fd;
    if (!child_start(c, &fd))
        return;
    struct rig_side s;
    rig_side_open(&s, job);
    rig_expect(&s, job, 1);
    rig_address_give(fd, s.mover);
    child_run(&s, job, fd, false);
    rig_side_close(&s);
    _exit(0);
}

void rig_child_sender(struct rig_child *c, const struct rig_job *job)
{
    int fd;
    if (!child_start(c, &fd))
        return;
    struct rig_side s;
    struct msg_rank_address to;
    rig_side_open(&s, job);
    rig_fill(&s.pool.view, s.blocks, job->tokens, job->salt);
    rig_address_take(fd, &to);
    rig_offer(&s, job, &to, 1);
    child_run(&s, job, fd, true);
    rig_side_close(&s);
    _exit(0);
}

bool rig_child_result(struct rig_child *c, struct rig_result *out, int64_t for_ns)
{
    struct pollfd p = {.fd = c->fd, .events = POLLIN};
    return poll(&p, 1, (int)(for_ns / NS_PER_MS)) == 1 &&
           read(c->fd, out, sizeof(*out)) == (ssize_t)sizeof(*out);
}

void rig_child_end(struct rig_child *c)
{
    int status;
    close(c->fd);
    kill(c->pid, SIGCONT);
    for (int i = 0; i < 1500; i++) { /* time to leave in order, for the leak checker's sake */
        if (waitpid(c->pid, &status, WNOHANG) == c->pid)
            return;
        clock_sleep_ns(10 * NS_PER_MS);
    }
    fprintf(stderr, "rig: the other process did not leave\n");
    kill(c->pid, SIGKILL);
    waitpid(c->pid, &status, 0);
}
