/* Two processes, each with its own mover: over shared memory and over UCX, whole and with either
 * side killed or stopped in the middle. */
#include <criterion/criterion.h>
#include <signal.h>

#include "base/clock.h"
#include "base/log.h"
#include "kvtransfer/kv_rig.h"

#define USER 7
#define WAIT_NS (30 * NS_PER_S)

static const char *const way_names[] = {"shm", "ucx"};

static struct rig_job big_job(enum rig_way way)
{
    return (struct rig_job){.way = way,
                            .layout = {.layers = 6,
                                       .kv_heads = 4,
                                       .head_dim = 64,
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
static void whole(enum rig_way way)
{
    struct rig_job sends = big_job(way), takes = sends;
    takes.layout.block_tokens = 32;
    takes.layout.blocks = 40;
    takes.layout.dtype = DTYPE_F32;
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
    whole(RIG_SHM);
}

Test(kv_processes, ucx_whole, .timeout = 60)
{
    whole(RIG_UCX);
}
