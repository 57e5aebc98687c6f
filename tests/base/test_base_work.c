#include <criterion/criterion.h>

#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>

#include "base/rng.h"
#include "base/team.h"
#include "base/work.h"

#define ITEMS_MAX 3000

struct job {
    struct team *team;
    struct work *work;
    size_t n, grain;
    int idle;          /* a member that takes nothing; -1: none */
    int before;        /* works that come first, without a meeting */
    atomic_int others; /* items of those that were taken */
    atomic_int taken[ITEMS_MAX];
    atomic_int pieces[64];
};

static void job_body(void *arg, int part, int parts)
{
    struct job *j = arg;
    size_t begin, end;
    (void)parts;
    for (int i = 0; i < j->before; i++) { /* members need not be at the same one */
        work_begin(j->work, part, j->n, j->grain);
        while (work_take(j->work, part, &begin, &end))
            atomic_fetch_add(&j->others, (int)(end - begin));
    }
    work_begin(j->work, part, j->n, j->grain);
    while (part != j->idle && work_take(j->work, part, &begin, &end)) {
        cr_assert(begin < end && end <= j->n, "[%zu, %zu) of %zu", begin, end, j->n);
        cr_assert(begin % j->grain == 0 && (end % j->grain == 0 || end == j->n));
        for (size_t i = begin; i < end; i++)
            atomic_fetch_add(&j->taken[i], 1);
        atomic_fetch_add(&j->pieces[part], 1);
    }
    team_barrier(j->team);
}

static void check_once(struct job *j)
{
    for (size_t i = 0; i < ITEMS_MAX; i++)
        cr_assert_eq(atomic_exchange(&j->taken[i], 0), i < j->n, "item %zu of %zu by %zu", i, j->n,
                     j->grain);
}

static struct job *job_make(int threads)
{
    struct job *j = calloc(1, sizeof *j);
    j->team = team_create(threads, false, false);
    j->work = work_create(threads);
    j->idle = -1;
    cr_assert(j->team && j->work);
    return j;
}

static void job_free(struct job *j)
{
    work_destroy(j->work);
    team_destroy(j->team);
    free(j);
}

/* Many works, one after the other, so that every slot is used again and again. */
Test(work, every_item_is_taken_once, .timeout = 60)
{
    for (int threads = 1; threads <= 13; threads += 4) {
        struct job *j = job_make(threads);
        struct rng rng = rng_seed(threads);
        for (int round = 0; round < 400; round++) {
            j->n = (size_t)(rng_next(&rng) % (ITEMS_MAX + 1));
            j->grain = 1 + (size_t)(rng_next(&rng) % 20);
            j->before = (int)(rng_next(&rng) % WORK_SLOTS);
            j->others = 0;
            team_run(j->team, job_body, j);
            check_once(j);
            cr_assert_eq(j->others, j->before * (int)j->n, "%d of %d times %zu", j->others,
                         j->before, j->n);
        }
        job_free(j);
    }
}

/* What a member leaves, the others take. */
Test(work, nobody_waits_for_who_is_slow, .timeout = 60)
{
    struct job *j = job_make(4);
    j->n = 1000;
    j->grain = 8;
    for (j->idle = 0; j->idle < 4; j->idle++) {
        team_run(j->team, job_body, j);
        check_once(j);
        cr_assert_eq(j->pieces[j->idle], 0);
        for (int part = 0; part < 4; part++)
            atomic_store(&j->pieces[part], 0);
    }
    job_free(j);
}

/* Shares are those of team_split(), and are taken from their beginnings: 125 items as 64, 32, 16,
 * 8 and 5 of a grain of 8. */
Test(work, own_share_first)
{
    struct work *w = work_create(2);
    size_t begin, end;
    static const size_t pieces[] = {64, 32, 16, 8, 5, 64, 32, 16, 8, 8};
    work_begin(w, 0, 253, 8);
    work_begin(w, 1, 253, 8);
    static const size_t firsts[] = {128, 192, 224, 240, 248, 0, 64, 96, 112, 120};
    for (size_t i = 0; i < sizeof pieces / sizeof pieces[0]; i++) {
        cr_assert(work_take(w, 1, &begin, &end), "%zu", i);
        cr_assert_eq(begin, firsts[i], "%zu: %zu", i, begin);
        cr_assert_eq(end - begin, pieces[i], "%zu: %zu", i, end - begin);
    }
    cr_assert_not(work_take(w, 1, &begin, &end));
    cr_assert_not(work_take(w, 0, &begin, &end));
    work_destroy(w);
}

/* Members need not be at the same work: one is ahead by all but one of the slots. */
Test(work, members_may_be_apart)
{
    struct work *w = work_create(2);
    size_t begin, end, items = 0;
    for (int i = 0; i < WORK_SLOTS; i++) {
        work_begin(w, 0, 10, 1);
        while (work_take(w, 0, &begin, &end))
            items += end - begin;
    }
    cr_assert_eq(items, 10 * WORK_SLOTS);
    for (int i = 0; i < WORK_SLOTS; i++) {
        work_begin(w, 1, 10, 1);
        cr_assert_not(work_take(w, 1, &begin, &end), "%d", i);
    }
    work_destroy(w);
}

Test(work, nothing_to_do)
{
    struct work *w = work_create(3);
    size_t begin, end;
    work_begin(w, 1, 0, 4);
    cr_assert_not(work_take(w, 1, &begin, &end));
    work_destroy(w);
    work_destroy(NULL);
}
