/* Two processes, each with its own mover: over shared memory and over UCX, whole and with either
 * side killed or stopped in the middle. */
#include <criterion/criterion.h>
#include <signal.h>
#include <sys/wait.h>

#include "base/clock.h"
#include "base/log.h"
#include "kvtransfer/kv_rig.h"

#define USER 7
#define WAIT_NS (30 * NS_PER_S)

static const char *const way_names[] = {"shm", "ucx"};

static void need_ucx(void)
{
    if (RIG_WAYS <= RIG_UCX)
        cr_skip_test("this build has no UCX");
}

static struct rig_job big_job(enum rig_way way)
{
    return (struct rig_job){.way = way,
                            .layout = {.layers = 6,
                                       .kv_heads = 4,
                                       .head_dim = 64,
                                       .value_dim = 64,
                                       .block_tokens = 16,
                                       .blocks = 80,
                                       .dtype = DTYPE_BF16},
                            .tokens = 999,
                            .salt = 42,
                            .ticket = 4711,
                            .deadline_ns = 30 * NS_PER_S};
}

static void check_landed(struct rig_side *d, const struct rig_job *job)
{
    struct mover_event ev;
    const int32_t range[2] = {job->have, job->tokens};
    cr_assert(rig_next(d, &ev, WAIT_NS), "%s: nothing landed", way_names[job->way]);
    cr_assert_eq(ev.kind, MOVER_LANDED);
    cr_assert_eq(ev.user, USER);
    cr_assert_eq(rig_wrong(&d->pool.view, d->blocks, range, job->salt), 0);
}

/* The child sends, this process receives in a pool of another shape. */
static void whole(enum rig_way way, enum dtype from, enum dtype to)
{
    struct rig_job sends = big_job(way), takes = sends;
    sends.layout.dtype = from;
    takes.layout.block_tokens = 32;
    takes.layout.blocks = 40;
    takes.layout.dtype = to;
    takes.layout.kv_heads = 2;
    takes.head_base = 1;
    struct rig_child c;
    struct rig_side d;
    struct rig_result r;
    rig_child_sender(&c, &sends);
    rig_side_open(&d, &takes);
    rig_expect(&d, &takes, USER);
    rig_address_give(c.fd, d.mover);
    check_landed(&d, &takes);
    struct mover_event ev;
    rig_next(&d, &ev, 50 * NS_PER_MS); /* lets the answer leave */
    cr_assert(rig_child_result(&c, &r, WAIT_NS), "%s: not delivered", way_names[way]);
    cr_assert_eq(r.kind, MOVER_DELIVERED);
    mover_forget(d.mover, USER);
    cr_assert(rig_next(&d, &ev, WAIT_NS));
    cr_assert_eq(ev.kind, MOVER_QUIET);
    rig_child_end(&c);
    rig_side_close(&d);
}

Test(kv_processes, shm_whole, .timeout = 60)
{
    whole(RIG_SHM, DTYPE_BF16, DTYPE_F32);
}

Test(kv_processes, ucx_whole, .timeout = 60)
{
    need_ucx();
    whole(RIG_UCX, DTYPE_BF16, DTYPE_F32);
}

/* Every type is sent, and every type is received. */
static void whole_of_all_types(enum rig_way way)
{
    for (int shift = 0; shift < 2; shift++)
        for (int from = 0; from < DTYPE_KV_COUNT; from++)
            whole(way, (enum dtype)from, (enum dtype)((from + 2 * shift) % DTYPE_KV_COUNT));
}

Test(kv_processes, shm_all_types, .timeout = 60)
{
    whole_of_all_types(RIG_SHM);
}

Test(kv_processes, ucx_all_types, .timeout = 60)
{
    need_ucx();
    whole_of_all_types(RIG_UCX);
}

/* A receiver waits with nothing to say; it must stay so, and lose the link, not the plan. */
static void sender_dies(enum rig_way way)
{
    struct rig_job dies = big_job(way), takes = dies, again = dies;
    dies.die_at_bytes = kv_pool_bytes(&dies.layout) / 4;
    dies.ready_every_ns = 50 * NS_PER_MS; /* so that much has left when it dies */
    struct rig_child first, second;
    struct rig_side d;
    struct rig_result r;
    struct mover_event ev;
    struct mover_stats stats = {0};
    rig_child_sender(&first, &dies);
    rig_child_sender(&second, &again); /* waits for the address */
    rig_side_open(&d, &takes);
    rig_expect(&d, &takes, USER);
    rig_address_give(first.fd, d.mover);
    int64_t begin = clock_now_ns();
    while (stats.links_lost == 0 && clock_now_ns() - begin < WAIT_NS) {
        cr_assert_not(rig_next(&d, &ev, 20 * NS_PER_MS), "%s: event %d", way_names[way], ev.kind);
        mover_get_stats(d.mover, &stats);
    }
    cr_assert_eq(stats.links_lost, 1, "%s: the death went unnoticed", way_names[way]);
    cr_assert_eq(stats.staging_free, 8, "%s: staging is not quiet", way_names[way]);
    cr_assert_gt(stats.bytes_in, 0);
    rig_address_give(second.fd, d.mover);
    check_landed(&d, &takes);
    cr_assert(rig_child_result(&second, &r, WAIT_NS));
    cr_assert_eq(r.kind, MOVER_DELIVERED);
    rig_child_end(&first);
    rig_child_end(&second);
    rig_side_close(&d);
}

Test(kv_processes, shm_sender_dies, .timeout = 90)
{
    sender_dies(RIG_SHM);
}

Test(kv_processes, ucx_sender_dies, .timeout = 90)
{
    need_ucx();
    sender_dies(RIG_UCX);
}

/* Waits for what the child's job makes it suffer; true when the mover has an event before that, or
 * because of it. */
static bool await_fate(struct rig_side *s, pid_t pid, struct mover_event *ev)
{
    siginfo_t info = {0};
    for (int i = 0; i < 1500 && info.si_pid == 0; i++) {
        if (rig_next(s, ev, 20 * NS_PER_MS))
            return true;
        cr_assert_eq(waitid(P_PID, (id_t)pid, &info, WEXITED | WSTOPPED | WNOHANG | WNOWAIT), 0);
    }
    cr_assert_eq(info.si_pid, pid, "the child lives on");
    return false;
}

/* This process offers half of it to a child, waits for that one's fate, and offers the rest; how it
 * ends, and how long that took. */
static int64_t offer_to_child(struct rig_side *p, const struct rig_job *job, struct rig_child *c,
                              struct mover_event *ev)
{
    struct msg_rank_address to;
    rig_fill(&p->pool.view, p->blocks, job->tokens, job->salt);
    rig_address_take(c->fd, &to);
    rig_offer(p, job, &to, USER);
    for (int32_t i = 0; i < job->layout.layers / 2; i++)
        mover_layer_ready(p->mover, USER, i, job->tokens);
    int64_t begin = clock_now_ns();
    if (await_fate(p, c->pid, ev))
        return clock_now_ns() - begin;
    begin = clock_now_ns();
    mover_fill(p->mover, USER, NULL, 0, begin);
    cr_assert(rig_next(p, ev, WAIT_NS), "%s: no end", way_names[job->way]);
    return clock_now_ns() - begin;
}

static void receiver_dies(enum rig_way way)
{
    struct rig_job dies = big_job(way), offers = dies;
    dies.die_at_bytes = kv_pool_bytes(&dies.layout) / 4;
    struct rig_child c;
    struct rig_side p;
    struct mover_event ev;
    struct mover_stats stats;
    rig_child_receiver(&c, &dies);
    rig_side_open(&p, &offers);
    int64_t took = offer_to_child(&p, &offers, &c, &ev);
    cr_assert_eq(ev.kind, MOVER_FAILED);
    cr_assert_eq(ev.status, ST_LINK, "%s: %s", way_names[way], status_name(ev.status));
    cr_assert_lt(took, 8 * NS_PER_S, "%s: %f s", way_names[way], (double)took / 1e9);
    cr_assert(mover_close(p.mover, USER));
    cr_assert(rig_next(&p, &ev, WAIT_NS));
    cr_assert_eq(ev.kind, MOVER_QUIET);
    rig_next(&p, &ev, 200 * NS_PER_MS);
    mover_get_stats(p.mover, &stats);
    cr_assert_eq(stats.staging_free, 8);
    cr_assert_eq(stats.offerings, 0);
    rig_child_end(&c);
    rig_side_close(&p);
}

Test(kv_processes, shm_receiver_dies, .timeout = 90)
{
    receiver_dies(RIG_SHM);
}

Test(kv_processes, ucx_receiver_dies, .timeout = 90)
{
    need_ucx();
    receiver_dies(RIG_UCX);
}

/* A stopped process keeps its sockets open: only its silence tells. */
static void receiver_stops(enum rig_way way, enum status expected)
{
    struct rig_job stops = big_job(way), offers = stops;
    stops.stop_at_bytes = kv_pool_bytes(&stops.layout) / 4;
    if (way == RIG_SHM) /* has no other end here */
        offers.deadline_ns = 4 * NS_PER_S;
    struct rig_child c;
    struct rig_side p;
    struct mover_event ev;
    struct mover_stats stats;
    rig_child_receiver(&c, &stops);
    rig_side_open(&p, &offers);
    int64_t took = offer_to_child(&p, &offers, &c, &ev);
    cr_assert_eq(ev.kind, MOVER_FAILED);
    cr_assert_eq(ev.status, expected, "%s: %s", way_names[way], status_name(ev.status));
    cr_assert_lt(took, 15 * NS_PER_S, "%s: %f s", way_names[way], (double)took / 1e9);
    cr_assert(mover_close(p.mover, USER));
    cr_assert(rig_next(&p, &ev, WAIT_NS));
    cr_assert_eq(ev.kind, MOVER_QUIET);
    rig_next(&p, &ev, 200 * NS_PER_MS);
    mover_get_stats(p.mover, &stats);
    cr_assert_eq(stats.staging_free, 8, "%s: %d", way_names[way], stats.staging_free);
    rig_child_end(&c); /* lets it go on first */
    rig_side_close(&p);
}

Test(kv_processes, shm_receiver_stops, .timeout = 90)
{
    receiver_stops(RIG_SHM, ST_DEADLINE);
}

Test(kv_processes, ucx_receiver_stops, .timeout = 90)
{
    need_ucx();
    receiver_stops(RIG_UCX, ST_LINK);
}

/* A sender that stops and goes on: its first link may be given up, the handoff is not. */
static void sender_stops(enum rig_way way)
{
    struct rig_job stops = big_job(way), takes = stops;
    stops.stop_at_bytes = kv_pool_bytes(&stops.layout) / 4;
    stops.ready_every_ns = 50 * NS_PER_MS;
    struct rig_child c;
    struct rig_side d;
    struct rig_result r;
    struct mover_event ev;
    rig_child_sender(&c, &stops);
    rig_side_open(&d, &takes);
    rig_expect(&d, &takes, USER);
    rig_address_give(c.fd, d.mover);
    cr_assert_not(rig_next(&d, &ev, 7 * NS_PER_S), "%s: event %d", way_names[way], ev.kind);
    kill(c.pid, SIGCONT);
    check_landed(&d, &takes);
    rig_next(&d, &ev, 50 * NS_PER_MS);
    cr_assert(rig_child_result(&c, &r, WAIT_NS));
    cr_assert_eq(r.kind, MOVER_DELIVERED, "%s: %s", way_names[way], status_name(r.status));
    rig_child_end(&c);
    rig_side_close(&d);
}

Test(kv_processes, shm_sender_stops, .timeout = 90)
{
    sender_stops(RIG_SHM);
}

Test(kv_processes, ucx_sender_stops, .timeout = 90)
{
    need_ucx();
    sender_stops(RIG_UCX);
}
