/* How the layers that store keys and values share the pages of one pool.
 *
 * Layers that see all positions need every token's KV to the end; sliding ones need the last
 * `window` of them, and what is older may be given back. So layers are parted into groups of one
 * kind each, of at most `page_layers` layers, and a *page* (what a block number stands for) holds
 * the KV of block_tokens tokens for the layers of one group: all pages are of one size and any may
 * serve any group. A sequence has a table of pages per group. (The idea is that of vLLM's hybrid KV
 * cache manager.) A model whose layers are all of one kind has one group of all its layers.
 *
 * The parting depends on the model's layers alone, so it is equal on every node that serves it.
 * Groups that see everything come first. Plain data, pure functions.
 */
#ifndef KERNELS_KV_GROUPS_H
#define KERNELS_KV_GROUPS_H

#include <stdint.h>

#define KV_GROUPS_MAX 16
#define KV_LAYERS_MAX 512
/* `slack` of groups that are made. */
#define KV_WINDOW_SLACK 256

struct kv_groups {
    int32_t n;
    int32_t layers;      /* of all groups together */
    int32_t page_layers; /* places of a page */
    /* A handoff brings so many tokens more than the window, so that the blocks before the last full
     * one are complete as well, and what has landed can be found again as a prefix. */
    int32_t slack;
    int32_t window[KV_GROUPS_MAX];   /* positions that a query sees, its own included; 0: all */
    uint8_t group_of[KV_LAYERS_MAX]; /* [layers] */
    int16_t place_of[KV_LAYERS_MAX]; /* [layers] within the pages of its group */
};

/* `window` of each layer that stores KV, 0: all positions; 1..KV_LAYERS_MAX layers. Where the kinds
 * are too many for KV_GROUPS_MAX, all layers keep everything. */
void kv_groups_make(const int32_t *window, int32_t layers, struct kv_groups *out);
/* The first position whose KV a handoff of `tokens` tokens brings, of a group's layers; `g` NULL:
 * all layers see everything. */
static inline int32_t kv_groups_need_from(const struct kv_groups *g, int32_t group, int32_t tokens)
{
    int32_t kept = g ? g->window[group] + g->slack : 0;
    return !g || g->window[group] == 0 || tokens <= kept ? 0 : tokens - kept;
}

#endif
