/* The desk: jobs in order, bounded, each told of once and dropped once, whoever leaves and whenever
 * it closes. */
#include <criterion/criterion.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>

#include "base/clock.h"
#include "router/desk.h"

#define PATIENCE_NS (1000 * NS_PER_S)
#define HEAVY (DESK_BYTES_HEAVY + 1)
#define WAIT_MS 20000

struct note {
    struct desk_job job; /* first */
    int name;
    bool worked; /* by a worker */
    bool gated;
};

static struct desk *desk;
static int64_t now_ns = 1;
static pthread_t loop_thread;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t change = PTHREAD_COND_INITIALIZER;
static bool gate_open;         /* under the lock, like all below */
static int begun[64], n_begun; /* names in the order of work */
static int told[64], n_told;   /* names in the order of done() */
static enum status told_status[64];
static int n_dropped, n_dropped_elsewhere;

static void note_work(struct desk_job *job)
{
    struct note *n = (struct note *)job;
    pthread_mutex_lock(&lock);
    if (n_begun < 64)
        begun[n_begun] = n->name;
    n_begun++;
    pthread_cond_broadcast(&change);
    while (n->gated && !gate_open)
        pthread_cond_wait(&change, &lock);
    pthread_mutex_unlock(&lock);
    n->worked = !pthread_equal(pthread_self(), loop_thread);
}

static void note_done(struct desk_job *job, enum status status)
{
    struct note *n = (struct note *)job;
    cr_assert(pthread_equal(pthread_self(), loop_thread));
    if (status == ST_OK)
        cr_assert(n->worked);
    if (n_told < 64) {
        told[n_told] = n->name;
        told_status[n_told] = status;
    }
    n_told++;
}

static void note_drop(struct desk_job *job)
{
    pthread_mutex_lock(&lock);
    n_dropped++;
    n_dropped_elsewhere += !pthread_equal(pthread_self(), loop_thread);
    pthread_mutex_unlock(&lock);
    free(job);
}

static struct note *make(int name, size_t bytes, bool gated)
{
    struct note *n = calloc(1, sizeof *n);
    n->job = (struct desk_job){note_work, note_done, note_drop, .bytes = bytes};
    n->name = name;
    n->gated = gated;
    return n;
}

static struct note *put(int name, size_t bytes, bool gated)
{
    struct note *n = make(name, bytes, gated);
    cr_assert_eq(desk_submit(desk, &n->job, now_ns), ST_OK);
    return n;
}

static void open_desk(size_t bytes_max)
{
    const struct desk_args args = {.bytes_max = bytes_max, .patience_ns = PATIENCE_NS};
    loop_thread = pthread_self();
    now_ns = 1;
    gate_open = false;
    n_begun = n_told = n_dropped = n_dropped_elsewhere = 0;
    cr_assert_eq(desk_create(&args, &desk, NULL), ST_OK);
}

static void open_gate(void)
{
    pthread_mutex_lock(&lock);
    gate_open = true;
    pthread_cond_broadcast(&change);
    pthread_mutex_unlock(&lock);
}

static void wait_begun(int count)
{
    pthread_mutex_lock(&lock);
    while (n_begun < count)
        pthread_cond_wait(&change, &lock);
    pthread_mutex_unlock(&lock);
}

static int dropped(void)
{
    pthread_mutex_lock(&lock);
    int n = n_dropped;
    pthread_mutex_unlock(&lock);
    return n;
}

/* Polls until so many were told and the desk is empty again, if it is to be. */
static void wait_told(int count, bool idle)
{
    while (n_told < count || (idle && !desk_is_idle(desk))) {
        struct pollfd p = {.fd = desk_fd(desk), .events = POLLIN};
        cr_assert_eq(poll(&p, 1, WAIT_MS), 1, "%d were told, and nothing comes back", n_told);
        desk_poll(desk, now_ns);
    }
}

static void close_desk(int count)
{
    desk_destroy(desk);
    cr_assert_eq(n_dropped, count, "%d of %d were dropped", n_dropped, count);
}

Test(desk, heavy_jobs_in_order_of_arrival)
{
    open_desk(SIZE_MAX);
    for (int i = 0; i < 20; i++)
        put(i, HEAVY, false);
    wait_told(20, true);
    for (int i = 0; i < 20; i++) {
        cr_assert_eq(begun[i], i);
        cr_assert_eq(told[i], i);
        cr_assert_eq(told_status[i], ST_OK);
    }
    close_desk(20);
    cr_assert_geq(n_dropped_elsewhere, 19, "what is heavy is dropped by workers");
}

Test(desk, light_jobs_do_not_wait_for_heavy_ones)
{
    open_desk(SIZE_MAX);
    for (int i = 0; i < 5; i++)
        put(i, HEAVY, true);
    for (int i = 5; i < 10; i++)
        put(i, DESK_BYTES_MIN, false);
    wait_told(5, false);
    for (int i = 0; i < 5; i++)
        cr_assert_eq(told[i], 5 + i);
    open_gate();
    wait_told(10, true);
    for (int i = 0; i < 5; i++)
        cr_assert_eq(told[5 + i], i);
    close_desk(10);
}

Test(desk, full_in_bytes)
{
    open_desk(3 * HEAVY);
    for (int i = 0; i < 3; i++)
        put(i, HEAVY, true);
    struct note *more = make(3, 1, false);
    cr_assert_eq(desk_submit(desk, &more->job, now_ns), ST_BUSY);
    open_gate();
    wait_told(3, true);
    cr_assert_eq(desk_submit(desk, &more->job, now_ns), ST_OK, "there is room again");
    wait_told(4, true);
    put(4, 100 * (size_t)HEAVY, false); /* alone it is taken, however large */
    wait_told(5, true);
    close_desk(5);
}

Test(desk, full_in_jobs)
{
    open_desk(SIZE_MAX);
    for (int i = 0; i < DESK_JOBS_MAX; i++)
        put(i, 1, true);
    struct note *more = make(0, 1, false);
    cr_assert_eq(desk_submit(desk, &more->job, now_ns), ST_BUSY);
    free(more);
    open_gate();
    wait_told(DESK_JOBS_MAX, true);
    close_desk(DESK_JOBS_MAX);
}

Test(desk, left_while_it_waits)
{
    open_desk(3 * HEAVY);
    put(0, HEAVY, true);
    struct note *second = put(1, HEAVY, false), *third = put(2, HEAVY, false);
    wait_begun(1);
    desk_leave(desk, &second->job);
    put(3, 1, false); /* a worker was free to drop it: the room is there again */
    desk_leave(desk, &third->job);
    open_gate();
    wait_told(2, true);
    cr_assert_eq(n_begun, 2, "what was left is not begun");
    close_desk(4);
}

Test(desk, left_while_it_is_worked_on)
{
    open_desk(SIZE_MAX);
    struct note *first = put(0, HEAVY, true);
    put(1, HEAVY, false);
    wait_begun(1);
    desk_leave(desk, &first->job);
    cr_assert(desk_is_left(&first->job));
    cr_assert_eq(dropped(), 0, "a worker has it");
    open_gate();
    wait_told(1, true);
    cr_assert_eq(told[0], 1);
    close_desk(2);
    cr_assert_eq(n_told, 1);
}

Test(desk, left_when_it_has_come_back)
{
    open_desk(SIZE_MAX);
    struct note *first = put(0, HEAVY, false);
    struct pollfd p = {.fd = desk_fd(desk), .events = POLLIN};
    cr_assert_eq(poll(&p, 1, WAIT_MS), 1);
    desk_leave(desk, &first->job);
    wait_told(0, true);
    cr_assert_eq(n_told, 0);
    close_desk(1);
}

Test(desk, patience_ends)
{
    open_desk(SIZE_MAX);
    for (int i = 0; i < 3; i++)
        put(i, HEAVY, true);
    wait_begun(1);
    desk_poll(desk, now_ns + PATIENCE_NS - 1);
    cr_assert_eq(n_told, 0);
    now_ns += PATIENCE_NS / 2;
    put(3, HEAVY, true);
    now_ns += PATIENCE_NS / 2;
    desk_poll(desk, now_ns);
    cr_assert_eq(n_told, 3);
    for (int i = 0; i < 3; i++) {
        cr_assert_eq(told[i], i);
        cr_assert_eq(told_status[i], ST_DEADLINE);
    }
    open_gate();
    wait_told(4, true);
    cr_assert(told[3] == 3 && told_status[3] == ST_OK);
    cr_assert_eq(n_begun, 2, "what ran out of time is not begun");
    close_desk(4);
}

Test(desk, all_can_be_ended)
{
    open_desk(SIZE_MAX);
    for (int i = 0; i < 10; i++)
        put(i, i % 2 ? HEAVY : 1, true);
    wait_begun(2);
    desk_end_all(desk, ST_LINK);
    cr_assert_eq(n_told, 10);
    for (int i = 0; i < 10; i++)
        cr_assert_eq(told_status[i], ST_LINK);
    open_gate();
    wait_told(10, true);
    cr_assert_eq(n_begun, 2);
    close_desk(10);
}

static void *open_soon(void *arg)
{
    clock_sleep_ns(20 * NS_PER_MS);
    open_gate();
    return NULL;
}

Test(desk, closes_with_jobs_in_flight)
{
    pthread_t opener;
    open_desk(SIZE_MAX);
    for (int i = 0; i < 50; i++)
        put(i, i % 3 ? HEAVY : 1, true);
    wait_begun(2);
    pthread_create(&opener, NULL, open_soon, NULL);
    close_desk(50);
    cr_assert(n_told == 0 && n_begun == 2);
    pthread_join(opener, NULL);
}

/* Everything at once, at every moment: what is put is dropped once, and told once unless left. */
Test(desk, storm)
{
    struct note *live[8] = {0};
    int put_in = 0, left = 0;
    unsigned dice = 1;
    open_desk(SIZE_MAX);
    open_gate();
    for (int i = 0; i < 20000; i++) {
        dice = dice * 1103515245 + 12345;
        int k = (int)(dice >> 16 & 7);
        if (!live[k] && put_in - dropped() < DESK_JOBS_MAX - 2) {
            live[k] = put(put_in++, dice >> 20 & 1 ? HEAVY : 1, true);
        } else if (live[k]) {
            /* One that was not polled since it was put in was neither told nor dropped. */
            desk_leave(desk, &live[k]->job);
            live[k] = NULL;
            left++;
        }
        if ((dice >> 24 & 3) == 0) {
            memset(live, 0, sizeof live);
            desk_poll(desk, now_ns);
        }
    }
    wait_told(put_in - left, true);
    cr_assert_eq(n_told, put_in - left);
    close_desk(put_in);
}
