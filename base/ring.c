/* Each cell carries a sequence number that says whose turn it is (Vyukov, "Bounded MPMC queue"):
 * equal to the position: free for the producer of that position; position + 1: filled for the
 * consumer. `signalled` keeps the eventfd to one write per emptying: a producer writes only when it
 * is the one that sets the flag, and the consumer clears the flag (after reading the eventfd,
 * before draining) with an exchange that synchronises with every producer that found it set, so
 * that their records are seen by the draining that follows.
 */
#include "base/ring.h"

#include <assert.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

struct cell {
    atomic_size_t turn;
    char record[];
};

struct ring {
    size_t mask, stride, record_bytes;
    char *cells;
    int fd;
    _Alignas(64) atomic_size_t tail; /* producers */
    _Alignas(64) size_t head;        /* the consumer */
    _Alignas(64) atomic_int signalled;
};

static struct cell *cell_at(const struct ring *r, size_t position)
{
    return (struct cell *)(void *)(r->cells + (position & r->mask) * r->stride);
}

struct ring *ring_create(size_t capacity, size_t record_bytes)
{
    assert(capacity > 0 && capacity <= SIZE_MAX / 4 && record_bytes < SIZE_MAX / 4);
    size_t n =
        2; /* with a single cell, "filled" and "free for the next" would be the same number */
    while (n < capacity)
        n *= 2;
    struct ring *r = aligned_alloc(_Alignof(struct ring), sizeof *r);
    if (r == NULL)
        return NULL;
    memset(r, 0, sizeof *r);
    r->mask = n - 1;
    r->record_bytes = record_bytes;
    r->stride = (sizeof(struct cell) + record_bytes + 15) / 16 * 16;
    r->cells = calloc(n, r->stride);
    r->fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    if (r->cells == NULL || r->fd < 0) {
        ring_destroy(r);
        return NULL;
    }
    for (size_t i = 0; i < n; i++)
        atomic_init(&cell_at(r, i)->turn, i);
    return r;
}

void ring_destroy(struct ring *r)
{
    if (r == NULL)
        return;
    if (r->fd >= 0)
        close(r->fd);
    free(r->cells);
    free(r);
}

bool ring_push(struct ring *r, const void *record)
{
    size_t position = atomic_load_explicit(&r->tail, memory_order_relaxed);
    struct cell *cell;
    for (;;) {
        cell = cell_at(r, position);
        size_t turn = atomic_load_explicit(&cell->turn, memory_order_acquire);
        intptr_t ahead = (intptr_t)turn - (intptr_t)position;
        if (ahead < 0)
            return false; /* full: the consumer has not freed this cell */
        if (ahead > 0)    /* another producer took it */
            position = atomic_load_explicit(&r->tail, memory_order_relaxed);
        else if (atomic_compare_exchange_weak_explicit(&r->tail, &position, position + 1,
                                                       memory_order_relaxed, memory_order_relaxed))
            break;
    }
    memcpy(cell->record, record, r->record_bytes);
    atomic_store_explicit(&cell->turn, position + 1, memory_order_release);
    if (atomic_exchange_explicit(&r->signalled, 1, memory_order_acq_rel) == 0) {
        uint64_t one = 1;
        ssize_t n = write(r->fd, &one, sizeof one);
        (void)n; /* it fails only when the counter is at its top: readable anyway */
    }
    return true;
}

bool ring_pop(struct ring *r, void *record)
{
    struct cell *cell = cell_at(r, r->head);
    size_t turn = atomic_load_explicit(&cell->turn, memory_order_acquire);
    if (turn != r->head + 1)
        return false;
    memcpy(record, cell->record, r->record_bytes);
    atomic_store_explicit(&cell->turn, r->head + r->mask + 1, memory_order_release);
    r->head++;
    return true;
}

int ring_fd(const struct ring *r)
{
    return r->fd;
}

void ring_clear(struct ring *r)
{
    uint64_t count;
    ssize_t n = read(r->fd, &count, sizeof count);
    (void)n; /* EAGAIN: nothing was signalled */
    atomic_exchange_explicit(&r->signalled, 0, memory_order_acq_rel);
}
