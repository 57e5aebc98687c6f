/* A stand-in for a model, for tests of everything that schedules, moves or shares KV.
 *
 * It writes hash values into the KV slots of every (layer, position) of a batch, as the batch's
 * block tables say, and takes its logits from all the KV of positions 0..pos, read back through
 * those tables: a wrong, stale, missing or overwritten block changes the tokens. Values are whole
 * numbers below 4, near enough in every KV dtype and after any conversion, and depend on token ids,
 * positions and (for layers above the first) on the layer below at all earlier positions, as
 * attention's do. fake_generate() says what the tokens must be, with no engine, pool or block in
 * sight.
 *
 * Thread: owner only. Cost: one step over the context per row and layer.
 */
#ifndef TESTS_SUPPORT_FAKE_MODEL_H
#define TESTS_SUPPORT_FAKE_MODEL_H

#include "engine/engine.h"

#define FAKE_HEAD_DIM 8
#define FAKE_EOS 0
#define FAKE_LAYERS_MAX 16
#define FAKE_WINDOW_MAX 64

struct fake_model {
    int32_t vocab, layers, kv_heads, max_context;
    uint64_t weights; /* another number is another model */
    bool broken;      /* gives NaN logits */
    int32_t eos;
    int64_t forwards, rows;
    int32_t rows_max, logits_max;         /* largest batch seen */
    int32_t long_from;                    /* prompts of so many tokens are long; 0: none */
    int64_t long_rows;                    /* rows of such seen */
    int32_t window[FAKE_LAYERS_MAX];      /* positions that a layer sees; 0: all */
    const struct grammar_vocab *grammars; /* for fake_generate(); NULL: there are none */
    struct kv_groups groups;              /* where some layer slides; a layout points here */
};

struct fake_model fake_model_default(void); /* vocab 64, 2 layers, 2 heads, context 512 */
/* Gives its layers windows, over and over; `slack` of a handoff. */
void fake_slide(struct fake_model *m, const int32_t *windows, int32_t n, int32_t slack);
struct kv_layout fake_layout(const struct fake_model *m, enum dtype dtype, int32_t block_tokens,
                             int32_t blocks);
struct engine_runner fake_runner(struct fake_model *m);
/* Blocks of each group, `stride` entries apart. */
struct fake_table {
    const int32_t *blocks;
    int32_t stride;
};
/* Writes the KV of ids[0..n) for positions [begin, n), of sliding layers what they need of it,
 * where `table` says: what a handoff would have brought. */
void fake_fill(const struct fake_model *m, const struct model_kv *kv, struct fake_table table,
               const struct msg_ids *ids, int32_t begin);
/* Logits [vocab] after ids[0..n). */
void fake_logits(const struct fake_model *m, const int32_t *ids, int32_t n, float *logits);
/* What an undisturbed sequence says: ids after prompt and `emitted`, up to its end; *reason as
 * msg_finish. Returns how many were written to out[max_tokens]. */
int32_t fake_generate(const struct fake_model *m, const struct msg_ids *prompt,
                      const struct msg_ids *emitted, const struct msg_sampling *spec,
                      int32_t choice, int32_t *out, enum msg_finish_reason *reason);

#endif
