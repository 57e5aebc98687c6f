#include <criterion/criterion.h>

#include <poll.h>
#include <sched.h>
#include <stdio.h>
#include <pthread.h>
#include <string.h>

#include "base/ring.h"

static bool readable(const struct ring *r, int timeout_ms)
{
    struct pollfd p = {.fd = ring_fd(r), .events = POLLIN};
    return poll(&p, 1, timeout_ms) == 1;
}

Test(ring, bound_and_order)
{
    struct ring *r = ring_create(5, sizeof(int)); /* rounded up to 8 */
    int v;
    cr_assert_not(ring_pop(r, &v));
    for (int lap = 0; lap < 5; lap++) {
        for (int i = 0; i < 8; i++)
            cr_assert(ring_push(r, &i));
        v = 99;
        cr_assert_not(ring_push(r, &v), "full");
        for (int i = 0; i < 8; i++) {
            cr_assert(ring_pop(r, &v));
            cr_assert_eq(v, i);
        }
        cr_assert_not(ring_pop(r, &v));
    }
    ring_destroy(r);
    ring_destroy(NULL);
}

Test(ring, smallest_capacity_and_odd_records)
{
    struct ring *r = ring_create(1, 13);
    char in[13] = "hello, world", out[13];
    cr_assert(ring_push(r, in));
    cr_assert(ring_push(r, in));
    cr_assert_not(ring_push(r, in));
    cr_assert(ring_pop(r, out));
    cr_assert_eq(memcmp(in, out, 13), 0);
    ring_destroy(r);
}

Test(ring, descriptor_tells_of_records)
{
    struct ring *r = ring_create(4, sizeof(int));
    int v = 1;
    cr_assert_not(readable(r, 0));
    ring_push(r, &v);
    ring_push(r, &v);
    cr_assert(readable(r, 0));
    ring_clear(r);
    cr_assert_not(readable(r, 0));
    while (ring_pop(r, &v)) {
    }
    ring_push(r, &v);
    cr_assert(readable(r, 0), "it speaks up again");
    ring_clear(r);
    ring_clear(r);
    ring_destroy(r);
}

enum { PRODUCERS = 4, EACH = 20000 };

struct record {
    int producer, n;
    char text[24];
};

struct producer {
    struct ring *ring;
    int id;
};

static void *produce(void *arg)
{
    struct producer *p = arg;
    for (int i = 0; i < EACH; i++) {
        struct record rec = {.producer = p->id, .n = i};
        snprintf(rec.text, sizeof rec.text, "%d/%d", p->id, i);
        while (!ring_push(p->ring, &rec))
            sched_yield();
    }
    return NULL;
}

/* The consumer sleeps in poll() without a limit that matters: a lost wake-up makes the test fail by
 * time. */
Test(ring, many_producers_lose_nothing, .timeout = 60)
{
    struct ring *r = ring_create(64, sizeof(struct record));
    pthread_t threads[PRODUCERS];
    struct producer producers[PRODUCERS];
    for (int i = 0; i < PRODUCERS; i++) {
        producers[i] = (struct producer){.ring = r, .id = i};
        pthread_create(&threads[i], NULL, produce, &producers[i]);
    }
    int next[PRODUCERS] = {0}, total = 0;
    while (total < PRODUCERS * EACH) {
        cr_assert(readable(r, 30000), "a wake-up was lost after %d records", total);
        ring_clear(r);
        struct record rec;
        while (ring_pop(r, &rec)) {
            char want[24];
            snprintf(want, sizeof want, "%d/%d", rec.producer, rec.n);
            cr_assert_eq(rec.n, next[rec.producer], "each producer's order holds");
            cr_assert_str_eq(rec.text, want);
            next[rec.producer]++;
            total++;
        }
    }
    for (int i = 0; i < PRODUCERS; i++)
        pthread_join(threads[i], NULL);
    ring_destroy(r);
}
