/* What the tests of kvtransfer share: pools whose every element is known, movers over a transport
 * of choice, and a second process that is one end of a handoff and may be killed or stopped.
 *
 * The truth is a function of (salt, layer, part, head of the model, token, element), a small whole
 * number that is the nearest one after rounding to any two dtypes, so a slice can be checked
 * whatever layouts it went through. Children die with the test. */
#ifndef TESTS_KV_RIG_H
#define TESTS_KV_RIG_H

#include <sys/types.h>

#include "kvtransfer/mover.h"
#include "kvtransfer/shm_pool.h"

#define RIG_HEAD_DIM 64 /* at most; values have as many elements as keys */

struct rig_pool {
    struct shm_pool memory;
    struct kv_pool_view view;
};

/* As a node makes it; every element is filled with a value that is no truth. */
void rig_pool_open(struct rig_pool *p, const struct kv_layout *layout, int32_t head_base);
void rig_pool_close(struct rig_pool *p);
/* The first n of a random order of the pool's blocks. */
void rig_blocks(int32_t *out, int32_t n, int32_t of, uint64_t seed);
/* How many elements of the vector of a layer, part, head and token are not the truth. */
int64_t rig_differs(const char *vector, const struct kv_layout *l, uint64_t salt,
                    const int32_t at[4]);
void rig_fill(const struct kv_pool_view *pool, const int32_t *blocks, int32_t tokens,
              uint64_t salt);
/* How many elements of tokens [begin, end) are not the truth. */
int64_t rig_wrong(const struct kv_pool_view *pool, const int32_t *blocks, const int32_t range[2],
                  uint64_t salt);

enum rig_way { RIG_SHM, RIG_UCX };
#define RIG_BLOCKS 64 /* at most, of a sequence */

struct rig_job {
    enum rig_way way;
    struct kv_layout layout;
    int32_t head_base;
    int32_t have, tokens;
    uint64_t salt, ticket;
    int64_t deadline_ns;    /* from now */
    int64_t die_at_bytes;   /* kills itself once so much has moved; 0: never */
    int64_t stop_at_bytes;  /* stops itself */
    int64_t ready_every_ns; /* a layer becomes ready each so often; 0: all at once */
    int32_t staging;
};

struct rig_side {
    struct rig_pool pool;
    struct transport *transport;
    struct mover *mover;
    int32_t blocks[RIG_BLOCKS];
    int32_t n_blocks;
};

void rig_side_open(struct rig_side *s, const struct rig_job *job);
void rig_side_close(struct rig_side *s);
void rig_expect(struct rig_side *s, const struct rig_job *job, uint64_t user);
/* Offers to the rank at `to`; the layers' readiness is the caller's, or rig_run()'s. */
void rig_offer(struct rig_side *s, const struct rig_job *job, const struct msg_rank_address *to,
               uint64_t user);
/* Works, sleeping on the transport's descriptor, until an event comes or the time is up. */
bool rig_next(struct rig_side *s, struct mover_event *ev, int64_t for_ns);

struct rig_result { /* what a child says at the end */
    int32_t kind, status;
    int64_t wrong;
    struct mover_stats stats;
};

struct rig_child {
    pid_t pid;
    int fd;
};

/* A process that expects the job / offers it. The receiver's address crosses by rig_address_give()
 * and _take(). Fork before this process opens a side of its own over UCX. */
void rig_child_receiver(struct rig_child *c, const struct rig_job *job);
void rig_child_sender(struct rig_child *c, const struct rig_job *job);
void rig_address_give(int fd, struct mover *m);
void rig_address_take(int fd, struct msg_rank_address *out); /* strings live until the next call */
bool rig_child_result(struct rig_child *c, struct rig_result *out, int64_t for_ns);
void rig_child_end(struct rig_child *c); /* kills what is left of it and reaps it */

#endif
