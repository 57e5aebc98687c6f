#include <criterion/criterion.h>

#include <signal.h>
#include <string.h>

#include "base/rng.h"
#include "base/slots.h"

struct object {
    uint64_t value[3];
};

Test(slots, fills_and_empties)
{
    struct slots *s = slots_create(3, sizeof(struct object));
    slot_id id[3], more;
    for (int i = 0; i < 3; i++) {
        struct object *o = slots_alloc(s, &id[i]);
        cr_assert_not_null(o);
        cr_assert_neq(id[i], 0);
        cr_assert_eq(o->value[0] | o->value[1] | o->value[2], 0, "zeroed");
        o->value[2] = 77;
    }
    cr_assert_null(slots_alloc(s, &more));
    cr_assert_eq(slots_count(s), 3);
    slots_free(s, id[1]);
    cr_assert_null(slots_get(s, id[1]), "stale");
    struct object *again = slots_alloc(s, &more);
    cr_assert_eq((uint32_t)more, (uint32_t)id[1], "same slot");
    cr_assert_neq(more, id[1], "other generation");
    cr_assert_eq(again->value[2], 0, "zeroed again");
    cr_assert_null(slots_get(s, id[1]), "still stale");
    cr_assert_eq(slots_get(s, more), (void *)again);
    cr_assert_eq(slots_capacity(s), 3);
    slots_destroy(s);
    slots_destroy(NULL);
}

Test(slots, hostile_ids_are_stale)
{
    struct slots *s = slots_create(4, 1);
    slot_id id;
    slots_alloc(s, &id);
    static const slot_id bad[] = {0,
                                  4,
                                  UINT64_MAX,
                                  UINT64_C(1) << 32 | 4,
                                  UINT64_C(1) << 32 | 0xffffffff,
                                  UINT64_C(2) << 32,
                                  UINT64_C(1) << 32 | 1};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        cr_assert_null(slots_get(s, bad[i]), "case %zu", i);
    cr_assert_not_null(slots_get(s, id));
    slots_destroy(s);
}

Test(slots, freeing_twice_is_our_bug, .signal = SIGABRT)
{
    struct slots *s = slots_create(4, 8);
    slot_id id;
    slots_alloc(s, &id);
    slots_free(s, id);
    slots_free(s, id);
}

Test(slots, visits_exactly_the_live)
{
    enum { N = 200 };
    struct slots *s = slots_create(N, sizeof(int));
    struct rng r = rng_seed(4);
    slot_id ids[N] = {0};
    cr_assert_eq(slots_next(s, 0), 0);
    for (int round = 0; round < 3000; round++) {
        size_t i = rng_below(&r, N);
        if (ids[i] == 0) {
            *(int *)slots_alloc(s, &ids[i]) = (int)i;
        } else {
            cr_assert_eq(*(int *)slots_get(s, ids[i]), (int)i);
            slots_free(s, ids[i]);
            ids[i] = 0;
        }
        if (round % 50 != 0)
            continue;
        size_t live = 0, visited = 0;
        bool seen[N] = {false};
        for (i = 0; i < N; i++)
            live += ids[i] != 0;
        for (slot_id id = slots_next(s, 0); id != 0; id = slots_next(s, id)) {
            int n = *(int *)slots_get(s, id);
            cr_assert_eq(ids[n], id);
            cr_assert_not(seen[n]);
            seen[n] = true;
            visited++;
        }
        cr_assert_eq(visited, live);
        cr_assert_eq(slots_count(s), live);
    }
    slots_destroy(s);
}

Test(slots, may_free_while_visiting)
{
    struct slots *s = slots_create(70, 4);
    slot_id id;
    while (slots_alloc(s, &id) != NULL) {
    }
    for (id = slots_next(s, 0); id != 0; id = slots_next(s, id))
        slots_free(s, id);
    cr_assert_eq(slots_count(s), 0);
    slots_destroy(s);
}
