/* Moving a slice between a paged pool and its canonical bytes (wire.h): gather, scatter with
 * conversion, CRC.
 *
 * Nothing here trusts a slice or a block list that came from a peer: callers check with
 * kv_slice_fits() first. Pure but for the memory given; any thread that may touch that memory.
 */
#ifndef KVTRANSFER_SLICE_H
#define KVTRANSFER_SLICE_H

#include <stdbool.h>

#include "kernels/kv_layout.h"
#include "kvtransfer/wire.h"

/* A pool as seen by a slice: layout's heads are [head_base, head_base + layout.kv_heads) of the
 * model. */
struct kv_pool_view {
    void *base;
    struct kv_layout layout;
    int32_t head_base;
};

/* The blocks of a sequence, or of the part of it that begins at token `token_base` (a multiple of
 * block_tokens): of each of the layout's groups, `stride` entries from one to the next. Where the
 * stride is 0 they are those of one group, which all layers of the slice belong to. An entry of a
 * block that is not there is -1. */
struct kv_blocks_view {
    const int32_t *blocks;
    int32_t n_blocks;
    int32_t token_base;
    int32_t stride;
};

/* Copies n_blocks of each group to `to`, one group's behind the other's (a stride of n_blocks). */
void kv_blocks_copy(const struct kv_layout *l, int32_t *to, const struct kv_blocks_view *from);
static inline size_t kv_blocks_bytes(const struct kv_layout *l, int32_t n_blocks)
{
    return sizeof(int32_t) * (size_t)kv_groups_of(l) * (size_t)n_blocks;
}
bool kv_slice_fits(const struct kv_slice *s, const struct kv_pool_view *pool,
                   const struct kv_blocks_view *blocks);
/* Canonical bytes of the slice to dst (NULL: only the CRC). Returns their CRC32C. */
uint32_t kv_slice_gather(const struct kv_slice *s, const struct kv_pool_view *pool,
                         const struct kv_blocks_view *blocks, void *dst);
/* Canonical bytes of `from` (dtype `from_dtype`) into the pool's blocks, converted, leaving out
 * what is not in `take`, a part of `from`. */
struct kv_scatter_args {
    const struct kv_slice *from, *take;
    enum dtype from_dtype;
    const void *bytes;
    const struct kv_pool_view *pool;
    const struct kv_blocks_view *blocks;
};
void kv_slice_scatter(const struct kv_scatter_args *a);
/* The part of a that is in b; false when empty. */
bool kv_slice_intersect(const struct kv_slice *a, const struct kv_slice *b, struct kv_slice *out);

#endif
