/* The desk: worker threads that read what is large or hard (JSON of megabytes, texts that take long
 * to tokenize, grammars to compile), so that one client's body holds up nobody else's tokens. What
 * is small is read by the loop itself, as quickly as a desk could be told of it.
 *
 *               desk_submit            handed to a worker        it comes back
 *     its maker -----------> waiting ---------------------> worked on ----------> done(), drop()
 *                               | desk_leave, deadline: drop()     | desk_leave, deadline: it is
 *                                                                    dropped when it comes back
 *
 * The loop owns the queue and everything in it; a worker has one job in its hands, and nothing but
 * rings lies between them. Bounded in jobs, in bytes and in time. Jobs of a class start in the
 * order of their arrival. One worker takes only those that are not heavy, which therefore never
 * wait for a heavy one.
 *
 * work(): a worker's. May look at the job's own memory and at what never changes (tokenizer,
 * template, rules). Asks desk_is_left() between its steps.
 * done(): the loop's; once, unless desk_leave() came first. With anything but ST_OK (ST_DEADLINE,
 * ST_LINK at the end) work() may still be running: what it writes must not be touched.
 * drop(): frees the job; on a worker where that may take long, on the loop otherwise.
 *
 *     st = desk_submit(desk, &mine->job, now_ns);  // ST_OK: mine is the desk's until drop()
 *
 * Thread: everything from the loop, but desk_is_left().
 */
#ifndef ROUTER_DESK_H
#define ROUTER_DESK_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/list.h"
#include "base/status.h"

/* On the loop, a body below this costs a few milliseconds at worst. */
#define DESK_BYTES_MIN (32u << 10)
#define DESK_BYTES_HEAVY (1u << 20)
#define DESK_JOBS_MAX 1024

struct desk;

struct desk_job {
    void (*work)(struct desk_job *job);
    void (*done)(struct desk_job *job, enum status status);
    void (*drop)(struct desk_job *job);
    size_t bytes; /* what it holds while it waits */
    /* the desk's */
    struct list link;
    int64_t deadline_ns;
    atomic_bool left;
};

struct desk_args {
    size_t bytes_max;    /* of all jobs; one alone is always taken */
    int64_t patience_ns; /* for a job, waiting and work together */
};

enum status desk_create(const struct desk_args *args, struct desk **out, struct error *err);
/* Waits for the jobs that are being worked on; nothing is told done(). NULL: nothing. */
void desk_destroy(struct desk *d);
int desk_fd(const struct desk *d); /* readable when desk_poll() has something to do */
void desk_poll(struct desk *d, int64_t now_ns);
bool desk_is_idle(const struct desk *d);
size_t desk_jobs(const struct desk *d); /* of those that it may hold: DESK_JOBS_MAX */
/* ST_BUSY: it is full, and the job is still its maker's. */
enum status desk_submit(struct desk *d, struct desk_job *job, int64_t now_ns);
/* The maker does not care any more. */
void desk_leave(struct desk *d, struct desk_job *job);
/* Every job is over: done() with this status. */
void desk_end_all(struct desk *d, enum status status);
bool desk_is_left(const struct desk_job *job);
/* What a client is told of a job that was not worked on, or not to its end. */
const char *desk_says(enum status status);

#endif
