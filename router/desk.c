#include "router/desk.h"

#include <assert.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>

#include "base/ring.h"

#define WORKERS 2

enum order { WORK, DROP, END };

struct record { /* to a worker, and back when it was followed */
    struct desk_job *job;
    enum order order;
    int worker;
};

struct worker {
    struct desk *desk;
    struct ring *in;
    pthread_t thread;
    struct desk_job *job; /* in its hands, and not dropped there; NULL: none */
    bool running, busy;
};

struct desk {
    struct desk_args args;
    struct ring *out;
    struct worker workers[WORKERS]; /* the first takes everything, the others what is not heavy */
    struct list waiting, spent;     /* spent: to be dropped by a worker */
    size_t n_jobs, bytes;           /* of all that are not dropped */
};

static struct desk_job *job_of(struct list *link)
{
    return list_entry(link, struct desk_job, link);
}

static bool is_heavy(const struct desk_job *job)
{
    return job->bytes > DESK_BYTES_HEAVY;
}

bool desk_is_left(const struct desk_job *job)
{
    return atomic_load(&job->left);
}

const char *desk_says(enum status status)
{
    switch (status) {
    case ST_BUSY:
        return "Too many large requests are waiting.";
    case ST_DEADLINE:
        return "The request could not be read in time.";
    default:
        return "The server is shutting down.";
    }
}

/* ---- the worker's side ---- */

static void follow(struct worker *w, struct record *r)
{
    if (r->order == DROP) {
        r->job->drop(r->job);
        r->job = NULL;
    } else if (!desk_is_left(r->job)) {
        r->job->work(r->job);
    }
    bool fits = ring_push(w->desk->out, r); /* one of each worker at most */
    assert(fits);
}

static void *worker_main(void *arg)
{
    struct worker *w = arg;
    for (;;) {
        struct record r;
        poll(&(struct pollfd){.fd = ring_fd(w->in), .events = POLLIN}, 1, -1);
        ring_clear(w->in);
        while (ring_pop(w->in, &r)) {
            if (r.order == END)
                return NULL;
            follow(w, &r);
        }
    }
}

/* ---- making ---- */

static bool start_worker(struct desk *d, int i)
{
    struct worker *w = &d->workers[i];
    w->desk = d;
    w->in = ring_create(2, sizeof(struct record)); /* an order, and the last one */
    w->running = w->in && pthread_create(&w->thread, NULL, worker_main, w) == 0;
    return w->running;
}

enum status desk_create(const struct desk_args *args, struct desk **out, struct error *err)
{
    struct desk *d = calloc(1, sizeof *d);
    if (!d)
        return err_set(err, ST_NO_MEMORY, "no memory for a desk");
    d->args = *args;
    list_init(&d->waiting);
    list_init(&d->spent);
    d->out = ring_create(WORKERS, sizeof(struct record));
    bool ok = d->out != NULL;
    for (int i = 0; i < WORKERS && ok; i++)
        ok = start_worker(d, i);
    if (!ok) {
        desk_destroy(d);
        return err_set(err, ST_NO_MEMORY, "cannot start the threads that read large bodies");
    }
    *out = d;
    return ST_OK;
}

/* ---- the loop's side ---- */

static void count_out(struct desk *d, const struct desk_job *job)
{
    d->n_jobs--;
    d->bytes -= job->bytes;
}

/* It is in nobody's hands, and nobody waits for it. */
static void retire(struct desk *d, struct desk_job *job)
{
    if (is_heavy(job)) {
        list_push_back(&d->spent, &job->link);
    } else {
        count_out(d, job);
        job->drop(job);
    }
}

static void give(struct desk *d, int i, struct desk_job *job, enum order order)
{
    struct worker *w = &d->workers[i];
    list_remove(&job->link);
    w->busy = true;
    w->job = order == WORK ? job : NULL;
    bool fits = ring_push(w->in, &(struct record){job, order, i});
    assert(fits);
}

/* The next for this worker. */
static struct desk_job *choose(struct desk *d, int worker)
{
    list_for_each(it, &d->waiting)
    {
        if (worker == 0 || !is_heavy(job_of(it)))
            return job_of(it);
    }
    return NULL;
}

static void hand_out(struct desk *d)
{
    for (int i = 0; i < WORKERS; i++) {
        struct desk_job *job;
        if (d->workers[i].busy)
            continue;
        if (!list_empty(&d->spent)) {
            job = job_of(d->spent.next);
            count_out(d, job);
            give(d, i, job, DROP);
        } else if ((job = choose(d, i)) != NULL) {
            give(d, i, job, WORK);
        }
    }
}

static void collect(struct desk *d)
{
    struct record r;
    ring_clear(d->out);
    while (ring_pop(d->out, &r)) {
        struct worker *w = &d->workers[r.worker];
        w->busy = false;
        w->job = NULL;
        if (!r.job)
            continue;
        if (!desk_is_left(r.job)) {
            atomic_store(&r.job->left, true);
            r.job->done(r.job, ST_OK);
        }
        retire(d, r.job);
    }
}

void desk_leave(struct desk *d, struct desk_job *job)
{
    assert(!desk_is_left(job));
    atomic_store(&job->left, true);
    if (list_empty(&job->link))
        return; /* a worker has it */
    list_remove(&job->link);
    retire(d, job);
    hand_out(d);
}

/* Told before it is left: in done() it is still its maker's. */
static void end_waiting(struct desk *d, struct desk_job *job, enum status status)
{
    list_remove(&job->link);
    job->done(job, status);
    atomic_store(&job->left, true);
    retire(d, job);
}

static void end_working(struct desk_job *job, enum status status)
{
    job->done(job, status);
    atomic_store(&job->left, true);
}

/* All have the same patience: the first in the queue is the first to lose it. */
static void expire(struct desk *d, int64_t now_ns)
{
    for (int i = 0; i < WORKERS; i++) {
        struct desk_job *job = d->workers[i].job;
        if (job && !desk_is_left(job) && job->deadline_ns <= now_ns)
            end_working(job, ST_DEADLINE);
    }
    while (!list_empty(&d->waiting) && job_of(d->waiting.next)->deadline_ns <= now_ns)
        end_waiting(d, job_of(d->waiting.next), ST_DEADLINE);
}

void desk_poll(struct desk *d, int64_t now_ns)
{
    collect(d);
    expire(d, now_ns);
    hand_out(d);
}

int desk_fd(const struct desk *d)
{
    return ring_fd(d->out);
}

bool desk_is_idle(const struct desk *d)
{
    return d->n_jobs == 0;
}

size_t desk_jobs(const struct desk *d)
{
    return d->n_jobs;
}

enum status desk_submit(struct desk *d, struct desk_job *job, int64_t now_ns)
{
    if (d->n_jobs > 0 && (d->n_jobs >= DESK_JOBS_MAX || d->bytes + job->bytes > d->args.bytes_max))
        return ST_BUSY;
    atomic_store(&job->left, false);
    job->deadline_ns = now_ns + d->args.patience_ns;
    d->n_jobs++;
    d->bytes += job->bytes;
    list_push_back(&d->waiting, &job->link);
    hand_out(d);
    return ST_OK;
}

void desk_end_all(struct desk *d, enum status status)
{
    for (int i = 0; i < WORKERS; i++) {
        struct desk_job *job = d->workers[i].job;
        if (job && !desk_is_left(job))
            end_working(job, status);
    }
    while (!list_empty(&d->waiting))
        end_waiting(d, job_of(d->waiting.next), status);
}

static void drop_all(struct list *jobs)
{
    while (!list_empty(jobs)) {
        struct desk_job *job = job_of(jobs->next);
        list_remove(&job->link);
        job->drop(job);
    }
}

void desk_destroy(struct desk *d)
{
    struct record r;
    if (!d)
        return;
    for (int i = 0; i < WORKERS; i++) {
        struct worker *w = &d->workers[i];
        if (w->job)
            atomic_store(&w->job->left, true);
        if (w->running)
            ring_push(w->in, &(struct record){.order = END});
    }
    for (int i = 0; i < WORKERS; i++) {
        if (d->workers[i].running)
            pthread_join(d->workers[i].thread, NULL);
        if (d->workers[i].in)
            ring_destroy(d->workers[i].in);
    }
    while (d->out && ring_pop(d->out, &r)) {
        if (r.job)
            r.job->drop(r.job);
    }
    drop_all(&d->spent);
    drop_all(&d->waiting);
    if (d->out)
        ring_destroy(d->out);
    free(d);
}
