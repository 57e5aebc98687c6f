#include "kvtransfer/slice.h"

#include <string.h>

#include "base/hash.h"

static const int32_t *blocks_of(const struct kv_pool_view *pool,
                                const struct kv_blocks_view *blocks, int32_t layer)
{
    return blocks->blocks + (size_t)kv_group_of(&pool->layout, layer) * (size_t)blocks->stride;
}

void kv_blocks_copy(const struct kv_layout *l, int32_t *to, const struct kv_blocks_view *from)
{
    size_t n = (size_t)from->n_blocks;
    for (size_t g = 0; g < (size_t)kv_groups_of(l); g++)
        memcpy(to + g * n, from->blocks + g * (size_t)from->stride, n * sizeof(*to));
}

bool kv_slice_fits(const struct kv_slice *s, const struct kv_pool_view *pool,
                   const struct kv_blocks_view *blocks)
{
    const struct kv_layout *l = &pool->layout;
    int64_t end_token = (int64_t)blocks->token_base + (int64_t)blocks->n_blocks * l->block_tokens;
    if (s->layer_begin < 0 || s->layer_begin >= s->layer_end || s->layer_end > l->layers)
        return false;
    if (s->head_begin < pool->head_base || s->head_begin >= s->head_end ||
        s->head_end > pool->head_base + l->kv_heads)
        return false;
    if (s->token_begin < blocks->token_base || s->token_begin >= s->token_end ||
        s->token_end > end_token)
        return false;
    int32_t first = (s->token_begin - blocks->token_base) / l->block_tokens;
    int32_t last = (s->token_end - 1 - blocks->token_base) / l->block_tokens;
    for (int32_t layer = s->layer_begin; layer < s->layer_end; layer++) {
        const int32_t *of = blocks_of(pool, blocks, layer);
        if (layer > s->layer_begin && of == blocks_of(pool, blocks, layer - 1))
            continue;
        for (int32_t i = first; i <= last; i++)
            if (of[i] < 0 || of[i] >= l->blocks)
                return false;
    }
    return true;
}

bool kv_slice_intersect(const struct kv_slice *a, const struct kv_slice *b, struct kv_slice *out)
{
#define MAX_OF(x, y) ((x) > (y) ? (x) : (y))
#define MIN_OF(x, y) ((x) < (y) ? (x) : (y))
    out->layer_begin = MAX_OF(a->layer_begin, b->layer_begin);
    out->layer_end = MIN_OF(a->layer_end, b->layer_end);
    out->token_begin = MAX_OF(a->token_begin, b->token_begin);
    out->token_end = MIN_OF(a->token_end, b->token_end);
    out->head_begin = MAX_OF(a->head_begin, b->head_begin);
    out->head_end = MIN_OF(a->head_end, b->head_end);
#undef MAX_OF
#undef MIN_OF
    return out->layer_begin < out->layer_end && out->token_begin < out->token_end &&
           out->head_begin < out->head_end;
}

/* One token's key or value of one head. */
struct spot {
    int layer;
    enum kv_part part;
    int32_t head, token;
};

/* Its address, and how many of the tokens from there on follow it contiguously. */
static char *run_at(const struct kv_pool_view *pool, const struct kv_blocks_view *blocks,
                    struct spot s, int32_t *run_tokens)
{
    const struct kv_layout *l = &pool->layout;
    int32_t at = s.token - blocks->token_base, slot = at % l->block_tokens;
    *run_tokens = l->block_tokens - slot;
    return (char *)pool->base + kv_offset(l, s.layer,
                                          blocks_of(pool, blocks, s.layer)[at / l->block_tokens],
                                          s.part, s.head - pool->head_base, slot);
}

uint32_t kv_slice_gather(const struct kv_slice *s, const struct kv_pool_view *pool,
                         const struct kv_blocks_view *blocks, void *dst)
{
    uint32_t crc = 0;
    char *to = dst;
    for (int layer = s->layer_begin; layer < s->layer_end; layer++) {
        for (enum kv_part part = KV_KEY; part <= KV_VALUE; part++) {
            size_t vector_bytes = kv_slot_bytes(&pool->layout, part);
            for (int32_t head = s->head_begin; vector_bytes && head < s->head_end; head++) {
                for (int32_t token = s->token_begin; token < s->token_end;) {
                    int32_t run;
                    const char *from =
                        run_at(pool, blocks, (struct spot){layer, part, head, token}, &run);
                    if (run > s->token_end - token)
                        run = s->token_end - token;
                    size_t bytes = (size_t)run * vector_bytes;
                    /* The CRC is of the bytes that were copied: the source may be changing under us
                     * when the sender has given the slice up, and then the receiver must notice. */
                    if (to) {
                        memcpy(to, from, bytes);
                        crc = hash_crc32c(crc, to, bytes);
                        to += bytes;
                    } else {
                        crc = hash_crc32c(crc, from, bytes);
                    }
                    token += run;
                }
            }
        }
    }
    return crc;
}

void kv_slice_scatter(const struct kv_scatter_args *a)
{
    const struct kv_slice *f = a->from, *t = a->take;
    const struct kv_layout *l = &a->pool->layout;
    size_t tokens = (size_t)(f->token_end - f->token_begin);
    size_t heads = (size_t)(f->head_end - f->head_begin);
    size_t key_bytes = kv_vector_bytes(a->from_dtype, (size_t)l->head_dim);
    size_t value_bytes = kv_vector_bytes(a->from_dtype, (size_t)l->value_dim);
    for (int layer = t->layer_begin; layer < t->layer_end; layer++) {
        for (enum kv_part part = KV_KEY; part <= KV_VALUE; part++) {
            const struct kv_conversion c = {l->dtype, a->from_dtype, (size_t)kv_part_dim(l, part)};
            size_t vector_bytes = part == KV_KEY ? key_bytes : value_bytes;
            size_t before = (size_t)(layer - f->layer_begin) * heads * (key_bytes + value_bytes) +
                            (part == KV_VALUE ? heads * key_bytes : 0);
            for (int32_t head = t->head_begin; vector_bytes && head < t->head_end; head++) {
                const char *row = (const char *)a->bytes +
                                  (before + (size_t)(head - f->head_begin) * vector_bytes) * tokens;
                for (int32_t token = t->token_begin; token < t->token_end;) {
                    int32_t run;
                    char *to =
                        run_at(a->pool, a->blocks, (struct spot){layer, part, head, token}, &run);
                    if (run > t->token_end - token)
                        run = t->token_end - token;
                    kv_vectors_convert(
                        &c, to, row + (size_t)(token - f->token_begin) * vector_bytes, (size_t)run);
                    token += run;
                }
            }
        }
    }
}
