/* Random-weight Hugging Face checkpoints of well-known shapes, for performance work: what a model
 * computes depends on its shape only, so none need be downloaded to measure one.
 *
 * Tensors are streamed to disk, never held in memory, in shards as a real checkpoint has them;
 * equal arguments give equal files. The folder serves: its tokenizer has the 256 bytes, four
 * special tokens, and filler words up to the shape's vocabulary. config.json is written last, so an
 * interrupted folder is not mistaken for a whole one.
 */
#ifndef MODEL_MAKE_H
#define MODEL_MAKE_H

#include <stddef.h>
#include <stdint.h>

#include "base/status.h"
#include "kernels/dtype.h"
#include "model/config.h"

struct model_make_args {
    const char *shape; /* one of model_make_shape() */
    const char *out;   /* a folder that is empty or not there yet */
    enum dtype dtype;
    uint64_t seed;
    uint64_t shard_bytes; /* 0: 5 GB; a tensor is never cut */
    /* Called now and then with bytes written so far; NULL: not. */
    void (*progress)(void *ctx, uint64_t done_bytes, uint64_t total_bytes);
    void *ctx;
};

/* ST_NOT_FOUND: no such shape (the text lists them). ST_INVALID: the folder is not empty. ST_IO. */
enum status model_make(const struct model_make_args *args, struct error *err);
/* Name of the i-th shape, NULL past the end; *config (may be NULL) gets its table. */
const char *model_make_shape(size_t i, struct model_config *config);

#endif
