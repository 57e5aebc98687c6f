/* A model: config and weights, able to run a ragged batch.
 *
 * Weights are mapped from the checkpoint where they are computed with as they lie there, and
 * converted when it is loaded where not. One model serves one engine thread: model_forward() runs
 * on the team given at load and uses the model's own scratch memory, sized at load for
 * max_batch_tokens rows. The KV pool belongs to the caller.
 *
 * Owner: model_load() gives an object freed by model_free(); the team must outlive it.
 */
#ifndef MODEL_MODEL_H
#define MODEL_MODEL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/status.h"
#include "base/stop.h"
#include "base/team.h"
#include "kernels/kv_layout.h"
#include "kernels/ops.h"
#include "model/config.h"

struct model;

/* How weights are computed with. PACKED: quantized ones as the small integers that they are, times
 * rows that are rounded to 8 bits, and bf16, where that is faster, times rows rounded to bf16.
 * FLOAT: converted to floats where need be, times rows of fp32. AUTO: packed, but a small model,
 * whose results are worth more than its speed, as FLOAT. WIDE: as PACKED, but rows have 16 bits, or
 * 32 where a body has no products of bf16; columns in an order of their own do not do that. INT8:
 * as PACKED, but what is no integers is rounded to such, 8 bits with a scale a row; and where all
 * of them are like that, rows have one scale each. */
enum model_weights_form {
    MODEL_WEIGHTS_AUTO,
    MODEL_WEIGHTS_PACKED,
    MODEL_WEIGHTS_FLOAT,
    MODEL_WEIGHTS_WIDE,
    MODEL_WEIGHTS_INT8,
    MODEL_WEIGHTS_FORMS
};
bool model_weights_form_parse(const char *name, enum model_weights_form *out);

struct model_load_args {
    const char *dir;
    const struct ops *ops;
    struct team *team;
    int32_t max_batch_tokens; /* most rows of one forward */
    int32_t max_logits_rows;  /* most rows that want logits */
    enum model_weights_form weights;
    /* Where converted weights are kept for the next start: a folder, "model" for beside the model
     * where they are 64 MiB at least, or NULL for nowhere. */
    const char *weights_cache;
    struct stop *stop; /* or NULL: asked by the thread that loads; then ST_CANCELLED */
};

/* A step's work. Rows of one sequence are adjacent, ascending in position; see struct op_rows. */
struct batch {
    const int32_t *ids;       /* [tokens] */
    const int32_t *positions; /* [tokens] */
    const int32_t *seq_of;    /* [tokens] */
    /* [groups of the layout][sequences]: each sequence's blocks. Entries that no window of a row
     * reaches are not looked up. */
    const int32_t *const *block_tables;
    int32_t tokens;
    const int32_t *logits_rows; /* [n_logits] rows whose logits are wanted, ascending */
    int32_t n_logits;
    const uint8_t *is_long; /* [sequences] LongRoPE's factors of long texts; NULL: none is long */
    int32_t sequences;      /* as block_tables counts them; of no meaning where one group is */
};

struct model_kv {
    void *pool;
    struct kv_layout layout;
};

/* Called on the thread of model_forward() when the keys and values of this batch are all in the
 * pool for one of the layout's layers. */
typedef void model_layer_done_fn(void *ctx, int layer);

/* 128 bits over config, tensor table, sampled weight bytes, RoPE settings (LAW 2): equal
 * fingerprints mean KV may be exchanged. */
struct fingerprint {
    uint64_t w[2];
};

enum status model_load(const struct model_load_args *args, struct model **out, struct error *err);
void model_free(struct model *m);
const struct model_config *model_get_config(const struct model *m);
const struct generation_defaults *model_get_defaults(const struct model *m);
struct fingerprint model_fingerprint(const struct model *m);
/* Whether a text whose prompt has so many tokens takes LongRoPE's other factors, to its end: what a
 * key is may depend on the prompt's length, but not on what follows (LAW 2). */
bool model_is_long(const struct model *m, int32_t prompt_tokens);
uint64_t model_weight_bytes(const struct model *m);
/* Of a mixture's experts, those that were chosen, in each forward so far. */
uint64_t model_expert_bytes(const struct model *m);
/* What most of its products are of: bytes, pairs of bf16, or floats. */
enum model_math { MODEL_MATH_FLOAT, MODEL_MATH_BF16, MODEL_MATH_INT8 };
enum model_math model_get_math(const struct model *m);
/* Layout of a pool for this model, with the model's groups; blocks = as many as fit pool_bytes. */
struct kv_layout model_kv_layout(const struct model *m, enum dtype dtype, int32_t block_tokens,
                                 uint64_t pool_bytes);
/* Runs the batch; logits[n_logits][vocab] go to `logits`. `done` may be NULL. Never fails: the
 * caller keeps within the limits given at load (asserted). */
void model_forward(struct model *m, const struct batch *b, const struct model_kv *kv, float *logits,
                   model_layer_done_fn *done, void *ctx);

#endif
