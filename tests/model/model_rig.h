/* A model with a KV pool, for tests: sequences get scattered blocks, the pool starts full of NaN,
 * and a step feeds chunks of several sequences. Owner: rig_open() gives, rig_close() frees. Thread:
 * one. Aborts on errors. */
#ifndef TESTS_MODEL_RIG_H
#define TESTS_MODEL_RIG_H

#include "model/model.h"

#define RIG_TOKENS_MAX 256
#define RIG_SEQUENCES_MAX 16

struct rig_args {
    const char *dir;
    const struct ops *ops;
    int threads;
    enum dtype kv_dtype;
    int32_t block_tokens;
    enum model_weights_form weights;
    const char *weights_cache;
};

struct rig {
    struct team *team;
    struct model *model;
    struct model_kv kv;
    int32_t vocab, blocks_used;
    int layers_done; /* counts layer_done calls of the last step */
};

struct sequence {
    const int32_t *ids;
    int32_t done; /* tokens in the pool */
    bool is_long; /* its prompt is beyond LongRoPE's original context */
    int32_t table[RIG_TOKENS_MAX * 2];
};

/* The next n tokens of a sequence; logits of all of them, of the last, or of none. */
enum want { WANT_NONE, WANT_LAST, WANT_ALL };
struct feed {
    struct sequence *sequence;
    int32_t n;
    enum want want;
};

struct rig *rig_open(const struct rig_args *args);
void rig_close(struct rig *r);
/* Gives the sequence its blocks. */
void rig_begin(struct rig *r, struct sequence *s, const int32_t *ids);
/* One forward; returns the number of logit rows written. */
int32_t rig_step(struct rig *r, const struct feed *feeds, int n_feeds, float *logits);
int32_t rig_argmax(const struct rig *r, const float *logits);

/* Path of a file next to the tests' sources, in a static buffer; and of the shared data. */
const char *rig_golden_path(const char *name);
const char *rig_shared_path(const char *name);
/* Visits every model folder among the goldens, or those of a folder of theirs; returns how many. */
typedef void rig_visit_fn(void *ctx, const char *name, const char *path);
int rig_each_golden(const char *under, rig_visit_fn *visit, void *ctx);

#endif
