/* Where a key or value lives in a rank's KV pool.
 *
 *     pool[place][block][kv_head][K or V][slot in block]     vectors (kv_vector.h) of `dtype`
 *
 * so that one (layer, block) is contiguous, and in it one head's keys and values, which attention
 * reads: the longer a run, the nearer reading comes to the memory's speed. Whoever changes this
 * changes the version of the hello that lets others read a pool (transport_shm_hello.c). A token at
 * absolute position p of a sequence lives in block_table[p / block_tokens] of the sequence's table
 * for the layer's group, at the layer's place (kv_groups.h), slot p % block_tokens. Pure; offsets
 * are in bytes from the pool's base.
 */
#ifndef KERNELS_KV_LAYOUT_H
#define KERNELS_KV_LAYOUT_H

#include <stddef.h>
#include <stdint.h>

#include "kernels/kv_groups.h"
#include "kernels/kv_vector.h"

struct kv_layout {
    int32_t layers, kv_heads; /* heads of this rank */
    int32_t head_dim;         /* elements of a key */
    int32_t value_dim;        /* elements of a value; 0: a key holds its value (latents) */
    int32_t block_tokens;
    int32_t blocks; /* capacity of the pool */
    enum dtype dtype;
    /* Of the layers; NULL: one, of all of them. Owned by whoever knows the model. */
    const struct kv_groups *groups;
};

enum kv_part { KV_KEY = 0, KV_VALUE = 1 };

static inline int32_t kv_part_dim(const struct kv_layout *l, enum kv_part part)
{
    return part == KV_KEY ? l->head_dim : l->value_dim;
}
/* one slot of one head; 0 where there are no values */
static inline size_t kv_slot_bytes(const struct kv_layout *l, enum kv_part part)
{
    return kv_vector_bytes(l->dtype, (size_t)kv_part_dim(l, part));
}
/* one head's slots of a block, keys or values */
static inline size_t kv_head_run_bytes(const struct kv_layout *l, enum kv_part part)
{
    return (size_t)l->block_tokens * kv_slot_bytes(l, part);
}
static inline size_t kv_head_bytes(const struct kv_layout *l) /* of a block, keys and values */
{
    return kv_head_run_bytes(l, KV_KEY) + kv_head_run_bytes(l, KV_VALUE);
}
static inline size_t kv_block_bytes(const struct kv_layout *l) /* K and V of one layer of a block */
{
    return (size_t)l->kv_heads * kv_head_bytes(l);
}
/* K and V of one token in one layer that stores them */
static inline size_t kv_token_bytes(const struct kv_layout *l)
{
    return (size_t)l->kv_heads * (kv_slot_bytes(l, KV_KEY) + kv_slot_bytes(l, KV_VALUE));
}
static inline size_t kv_layer_bytes(const struct kv_layout *l)
{
    return (size_t)l->blocks * kv_block_bytes(l);
}
static inline int32_t kv_groups_of(const struct kv_layout *l)
{
    return l->groups ? l->groups->n : 1;
}
static inline int32_t kv_group_of(const struct kv_layout *l, int32_t layer)
{
    return l->groups ? l->groups->group_of[layer] : 0;
}
static inline int32_t kv_group_window(const struct kv_layout *l, int32_t group)
{
    return l->groups ? l->groups->window[group] : 0;
}
static inline int32_t kv_page_layers(const struct kv_layout *l)
{
    return l->groups ? l->groups->page_layers : l->layers;
}
static inline size_t kv_page_bytes(const struct kv_layout *l) /* of one block, in all places */
{
    return (size_t)kv_page_layers(l) * kv_block_bytes(l);
}
static inline size_t kv_pool_bytes(const struct kv_layout *l)
{
    return (size_t)kv_page_layers(l) * kv_layer_bytes(l);
}
static inline size_t kv_offset(const struct kv_layout *l, int layer, int32_t block,
                               enum kv_part part, int head, int slot)
{
    size_t place = l->groups ? (size_t)l->groups->place_of[layer] : (size_t)layer;
    size_t values = part == KV_VALUE ? kv_head_run_bytes(l, KV_KEY) : 0;
    return place * kv_layer_bytes(l) + (size_t)block * kv_block_bytes(l) +
           (size_t)head * kv_head_bytes(l) + values + (size_t)slot * kv_slot_bytes(l, part);
}

#endif
