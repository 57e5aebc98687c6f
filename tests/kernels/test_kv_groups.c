/* Layers in groups of one kind. */
#include <criterion/criterion.h>

#include <string.h>

#include "kernels/kv_layout.h"

/* Every layer has a place of its own in a group of its kind. */
static struct kv_groups make(const int32_t *window, int32_t layers)
{
    static bool taken[KV_GROUPS_MAX][KV_LAYERS_MAX];
    struct kv_groups g;
    memset(taken, 0, sizeof taken);
    kv_groups_make(window, layers, &g);
    cr_assert(g.n >= 1 && g.n <= KV_GROUPS_MAX);
    cr_assert_eq(g.layers, layers);
    for (int32_t i = 0; i < layers; i++) {
        cr_assert_lt(g.group_of[i], g.n);
        cr_assert(g.place_of[i] >= 0 && g.place_of[i] < g.page_layers);
        cr_assert_not(taken[g.group_of[i]][g.place_of[i]]);
        taken[g.group_of[i]][g.place_of[i]] = true;
    }
    return g;
}

Test(kv_groups, one_kind_is_one_group)
{
    int32_t window[40] = {0};
    struct kv_groups g = make(window, 40);
    cr_assert_eq(g.n, 1);
    cr_assert_eq(g.page_layers, 40);
    for (int i = 0; i < 40; i++) {
        cr_assert_eq(g.place_of[i], i);
        window[i] = 4096;
    }
    g = make(window, 40);
    cr_assert_eq(g.n, 1);
    cr_assert_eq(g.window[0], 4096);
}

Test(kv_groups, pages_are_as_large_as_the_smallest_kind)
{
    int32_t window[26];
    for (int i = 0; i < 26; i++) /* every sixth sees everything */
        window[i] = i % 6 == 5 ? 0 : 512;
    struct kv_groups g = make(window, 26);
    cr_assert_eq(g.page_layers, 4);
    cr_assert_eq(g.n, 1 + 6);
    cr_assert_eq(g.window[0], 0, "groups that see everything come first");
    for (int i = 0; i < 26; i++)
        cr_assert_eq(g.window[g.group_of[i]], window[i]);
    int32_t half[24];
    for (int i = 0; i < 24; i++)
        half[i] = i % 2 ? 0 : 128;
    g = make(half, 24);
    cr_assert_eq(g.page_layers, 12);
    cr_assert_eq(g.n, 2);
}

Test(kv_groups, are_never_too_many)
{
    static int32_t window[KV_LAYERS_MAX];
    for (int i = 0; i < KV_LAYERS_MAX; i++)
        window[i] = i == 7 ? 0 : 100;
    struct kv_groups g = make(window, KV_LAYERS_MAX);
    cr_assert_leq(g.n, KV_GROUPS_MAX);
    for (int i = 0; i < KV_LAYERS_MAX; i++) /* more kinds than groups: nothing slides */
        window[i] = 1 + i;
    g = make(window, KV_LAYERS_MAX);
    cr_assert_eq(g.n, 1);
    cr_assert_eq(g.window[0], 0);
    for (int i = 0; i < KV_GROUPS_MAX; i++)
        window[i] = i;
    g = make(window, KV_GROUPS_MAX);
    cr_assert_eq(g.n, KV_GROUPS_MAX);
    make(window, 1);
}

Test(kv_groups, a_handoff_brings_the_window)
{
    static const int32_t window[2] = {0, 100};
    struct kv_groups g = make(window, 2);
    cr_assert_eq(kv_groups_need_from(&g, 0, 100000), 0);
    cr_assert_eq(kv_groups_need_from(&g, 1, 100 + g.slack), 0);
    cr_assert_eq(kv_groups_need_from(&g, 1, 1000 + g.slack), 900);
    cr_assert_eq(kv_groups_need_from(NULL, 0, 1000), 0);
}

Test(kv_groups, pages_do_not_overlap)
{
    static const int32_t window[5] = {9, 0, 9, 9, 0};
    struct kv_groups g = make(window, 5);
    struct kv_layout l = {.layers = 5,
                          .kv_heads = 2,
                          .head_dim = 4,
                          .value_dim = 4,
                          .block_tokens = 3,
                          .blocks = 7,
                          .dtype = DTYPE_BF16,
                          .groups = &g};
    cr_assert_eq(kv_pool_bytes(&l), 2 * 7 * kv_block_bytes(&l));
    cr_assert_eq(kv_page_bytes(&l), 2 * kv_block_bytes(&l));
    /* [head][K or V][slot], vectors of 8 bytes. Peers read a pool by this: see SHM_VERSION. */
    cr_assert_eq(kv_offset(&l, 0, 0, KV_KEY, 0, 2), 2 * 8);
    cr_assert_eq(kv_offset(&l, 0, 0, KV_VALUE, 0, 0), 3 * 8);
    cr_assert_eq(kv_offset(&l, 0, 0, KV_KEY, 1, 0), 2 * 3 * 8);
    cr_assert_eq(kv_offset(&l, 0, 1, KV_KEY, 0, 0), 2 * 2 * 3 * 8);
    for (int i = 0; i < 5; i++) {
        size_t at = kv_offset(&l, i, 6, KV_VALUE, 1, 2);
        cr_assert_leq(at + 4 * 2, kv_pool_bytes(&l));
        for (int k = 0; k < i; k++)
            if (g.group_of[i] == g.group_of[k])
                cr_assert_neq(at, kv_offset(&l, k, 6, KV_VALUE, 1, 2));
    }
}
