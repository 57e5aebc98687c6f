/* The engine: sequences, their KV blocks, and steps over ragged batches.
 *
 * A *group* is one prompt with n choices. It reserves blocks (all of the prompt and one more), gets
 * the prompt's KV (computed here in chunks, or landed by a handoff), and then each choice is a
 * sequence of its own that shares the prompt's blocks, copy-on-write. A sequence is its known ids
 * and how many of them have KV; a step computes some of the others: 1 for a decoding sequence, a
 * chunk for a prefilling one; the last known id's logits give the next id. There is no other
 * difference between prefill and decode.
 *
 *     RESERVED --- begin_fill ---> FILLING --- fill_done, fill_here ---> RUNNING <---> PAUSED
 *         |                           |                                   |  |       (no credit)
 *         |                           |                    prefill role:  |  +--> HOLDING
 *         +---------------------------+-----------------------------------+---- release ---> gone
 *
 * HOLDING: the first tokens have been said, the KV is kept for the handoff.
 *
 * The engine is deterministic: no clock, thread, I/O or hidden state; time comes in as arguments.
 * It allocates at create and per group (never in a step). Ids that it is given are checked against
 * the vocabulary.
 *
 * Owner and thread: the loop thread only; callbacks run inside engine_step().
 *
 * It has over 150 lines because what the engine does is one interface.
 */
#ifndef ENGINE_ENGINE_H
#define ENGINE_ENGINE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/slots.h"
#include "base/status.h"
#include "kernels/kv_layout.h"
#include "model/model.h"
#include "proto/messages.h"
#include "tokenizer/grammar/grammar.h"

struct engine;
struct grammars;
typedef slot_id group_id;

/* What runs a batch: a model, or a test's stand-in. As model_forward(). */
struct engine_runner {
    void *ctx;
    void (*forward)(void *ctx, const struct batch *b, const struct model_kv *kv, float *logits,
                    model_layer_done_fn *done, void *done_ctx);
    /* As model_is_long(): keys of texts with such a prompt are of another kind; NULL: never. */
    bool (*is_long)(const void *ctx, int32_t prompt_tokens);
    int32_t vocab, max_context;
    const int32_t *eos;
    int32_t n_eos;
};

/* The engine's voice; each is called inside engine_step(), `user` is the group's. Must not call
 * back into the engine, except where said: they note what happened. */
struct engine_events {
    /* A token was chosen (position counts generated tokens of the choice from 0). */
    void (*token)(void *ctx, void *user, const struct msg_token *t);
    /* One id of the prompt, in order of positions from scoring.begin on; NULL: not wanted. */
    void (*score)(void *ctx, void *user, const struct msg_score *s);
    /* A choice has all its tokens. */
    void (*finish)(void *ctx, void *user, const struct msg_finish *f);
    /* The group cannot go on: PREEMPTED (no block for the youngest) or INTERNAL. Its owner releases
     * it after the step. */
    void (*failed)(void *ctx, void *user, enum status status, const char *why);
    /* Before a forward, of the prefill role: KV of group's prompt positions [begin, end) will be
     * written in this step, layer by layer. NULL: not wanted. */
    void (*chunk)(void *ctx, void *user, int32_t begin, int32_t end);
    /* During the forward: KV of every chunk of this step is in the pool for this layer. NULL: not
     * wanted. */
    void (*layer_done)(void *ctx, int32_t layer);
    void *ctx;
};

struct engine_args {
    struct engine_runner runner;
    struct engine_events events;
    void *pool; /* memory of kv_pool_bytes(&layout), owned by the caller */
    struct kv_layout layout;
    bool prefix_cache;
    int32_t max_batch;        /* sequences in a step */
    int32_t chunk_tokens_max; /* prompt tokens in a step */
    int64_t step_budget_ns;
    int32_t max_groups;
    uint64_t salt; /* of model and adapter, mixed into every request's */
    const struct grammar_vocab *grammar_vocab; /* NULL: requests may ask for no grammar */
};

struct engine_request {
    struct msg_ids prompt; /* copied */
    int32_t n;
    const struct msg_ids *emitted; /* [n] or NULL; copied; continued from there */
    const bool *finished;          /* [n] or NULL */
    struct msg_sampling sampling;  /* copied with its arrays */
    const char *cache_salt;
    int64_t credits;
    bool prefill_only; /* prefill role: sample the first token of each choice if want_first, then
                          hold */
    bool want_first;
    /* Scores the prompt, wherever its KV is computed here. Nothing is read from the prefix cache
     * whose logits are wanted. */
    struct msg_scoring scoring;
    int32_t history_prompt; /* of `prompt`, how many ids count as prompt for penalties; 0: all */
    void *user;
};

/* One runner's largest batch: rows and logits rows that its forward must be able to take. */
int32_t engine_rows_max(const struct engine_args *args);
int32_t engine_logits_max(const struct engine_args *args);
enum status engine_create(const struct engine_args *args, struct engine **out, struct error *err);
void engine_destroy(struct engine *e);

/* Checks and reserves. ST_INVALID, ST_NEVER_FITS, ST_BUSY. `have`: tokens whose KV is here already
 * (prefix hit), at most transfer_tokens - 1. */
enum status engine_reserve(struct engine *e, const struct engine_request *req, group_id *out,
                           int32_t *have, struct error *err);
/* engine_reserve() would compile a grammar, which may take long: who has other things to do has it
 * compiled by another thread and enters it in engine_grammars() before it reserves (grammars.h). */
bool engine_lacks_grammar(const struct engine *e, const struct engine_request *req);
struct grammars *engine_grammars(struct engine *e);
/* Tokens whose KV a handoff must bring: the prompt, and the emitted ids too when n == 1. */
int32_t engine_transfer_tokens(struct engine *e, group_id id);
/* Blocks of the transferred tokens, in order, the tables of the layout's groups `stride` entries
 * apart: the landing plan. Moves those after `have` to RECEIVING; of a sliding group those that no
 * window reaches are -1. */
const int32_t *engine_begin_fill(struct engine *e, group_id id, int32_t *n_blocks);
int32_t engine_table_stride(struct engine *e, group_id id);
/* All KV has landed; `first`: the tokens sampled by the prefill node, one per unfinished choice
 * with nothing emitted, or n_first 0: then the last token is computed again here to sample. They
 * are reported through events.token as well. Call outside a step. */
void engine_fill_done(struct engine *e, group_id id, const struct msg_token *first,
                      int32_t n_first);
/* No handoff will come: compute what is missing here (all of it, or beyond `have`). From RESERVED
 * or FILLING, when the landing plan is quiet. */
void engine_fill_here(struct engine *e, group_id id);
void engine_credit(struct engine *e, group_id id, int64_t n);
void engine_stop_choice(struct engine *e, group_id id, int32_t choice); /* no finish event */
/* Gives up the group. Full, complete blocks stay as prefix when `keep`. With `quiet` false its
 * unshared blocks are quarantined until engine_quiet(id): a transfer may still touch them. The id
 * stays valid only for engine_quiet(). */
void engine_release(struct engine *e, group_id id, bool keep, bool quiet);
void engine_quiet(struct engine *e, group_id id);

/* True when a step would do something. */
bool engine_runnable(const struct engine *e);
struct engine_step_info {
    int32_t prefill_tokens, decode_tokens, sequences;
};
/* Plans and runs one step. */
void engine_step(struct engine *e, struct engine_step_info *info);
/* How long the step took: sizes the next chunks to step_budget_ns. */
void engine_step_took(struct engine *e, const struct engine_step_info *info, int64_t ns);

struct engine_load {
    int32_t groups, running, waiting; /* sequences running; groups filling or not yet begun */
    int64_t prefill_tokens_left;
    int64_t prefill_ns_per_token, decode_ns_per_step;
    struct msg_blocks blocks;
    int64_t prefix_hit_tokens_total, preemptions_total;
};
void engine_load(const struct engine *e, struct engine_load *out);
/* Tokens of the longest sequence that the pool can hold; `prefill`: in the prefill role. */
int64_t engine_room_tokens(const struct engine *e, bool prefill);
/* The group's prompt is to be scored here and has not been in full. */
bool engine_scores_due(struct engine *e, group_id id);
/* Prompt tokens of a group that were found in the prefix cache. */
int32_t engine_group_cached(struct engine *e, group_id id);
void engine_check(const struct engine *e); /* LAW 6 and the sequences' own invariants; asserts */
void engine_drop_cache(struct engine *e);

#endif
