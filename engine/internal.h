/* The engine's own structs, shared by engine*.c and by nothing else.
 *
 * A group's memory is one allocation, made when it is reserved and freed when it is gone. Its lead
 * sequence (the first choice that needs tokens) does the prefill for all; at the fork the others
 * take references to its full blocks and copies of the last one. Groups stand in one list in order
 * of age; everything walks it from the oldest.
 *
 * Blocks: sequences hold one reference on each block of their tables, one table for each of the
 * layout's groups, from position 0 on; those behind the last computed position are promised, not
 * used. Of a sliding group those before the window are given back (seq_trim), and of a long prompt
 * only as many are promised as can be in use at once. The prefill role keeps those that the handoff
 * brings until it is over, and they are promised from the start, where they are to be: offers name
 * them. Those before are computed within a few that go round: a *hole* lies between the two, filled
 * from its beginning as blocks are given back.
 *
 * It has over 150 lines because its structs are one state.
 */
#ifndef ENGINE_INTERNAL_H
#define ENGINE_INTERNAL_H

#include "base/list.h"
#include "engine/engine.h"
#include "engine/grammars.h"
#include "engine/kvpool.h"
#include "engine/plan.h"
#include "engine/prefix.h"
#include "engine/sampler.h"

/*  RESERVED -> FILLING -> PREFILLING -> DECODING   -> LEFT (released, not quiet)
 *  Also from RESERVED straight to PREFILLING (nothing will land), from FILLING to DECODING (landed
 * with first tokens), from PREFILLING to HOLDING (prefill role), from each but LEFT to FAILED, and
 * from each to LEFT. */
enum group_phase {
    GROUP_RESERVED,   /* has blocks; nobody writes to them */
    GROUP_FILLING,    /* a landing plan may write to them */
    GROUP_PREFILLING, /* the lead computes what is missing of `target` tokens */
    GROUP_DECODING,   /* forked: every live choice runs by itself */
    GROUP_HOLDING,    /* prefill role: all computed, kept for the handoff */
    GROUP_FAILED,     /* its owner was told; waits for release */
    GROUP_LEFT,       /* released while a transfer may still touch its blocks */
    GROUP_PHASES
};

/* Entries [first, n) of a table are blocks, or -1 where none is needed; those before are -1.
 * [hole, hole_end) have none yet, in the prefill role. */
struct span {
    int32_t first, n;
    int32_t hole, hole_end;
};

struct seq {
    int32_t *ids; /* prompt and generated, n_ids of them known */
    int32_t n_ids;
    int32_t *table;            /* [groups of the layout][cap_blocks of the group] */
    struct span *span;         /* [groups of the layout] */
    int32_t node;              /* of the last block entered in the prefix index; held */
    int32_t computed;          /* positions [0, computed) have KV */
    int32_t entered;           /* blocks [0, entered) are in the prefix index */
    bool enter;                /* further blocks may be entered */
    bool done;                 /* needs no more tokens: finished, stopped or never wanted */
    bool finishing;            /* finish is due as soon as everything is said */
    bool held;                 /* `token` is chosen but not said yet */
    struct grammar_state said; /* where the generated ids have led to */
    int32_t followed;          /* how many of them `said` has seen */
    struct msg_finish finish;
    struct msg_token token;
    struct msg_logprob top[MSG_LOGPROBS_MAX];
};

struct group {
    struct list link;
    group_id id;
    void *user;
    void *memory;
    enum group_phase phase;
    bool prefill_only, want_first, announced, is_long;
    int32_t n, lead;
    int32_t n_prompt; /* ids that count as prompt */
    int32_t target;   /* tokens whose KV comes by handoff or by the lead's prefill */
    int32_t hit;      /* of these, found in the prefix cache */
    int32_t hit_blocks;
    int32_t cap_ids, cap_blocks; /* of each sequence */
    int64_t credits;
    int32_t planned;  /* tokens that this step will say, at most */
    int32_t score_at; /* the next position of the prompt to score here; 0: none is wanted */
    int32_t score_top;
    int32_t turn; /* which choice comes first when credits are short */
    uint64_t salt;
    struct msg_sampling spec;
    struct grammar_use *grammar; /* NULL: none */
    struct seq *seqs;            /* [n]; prefill role: one */
    int32_t n_seqs;
    int32_t *spare; /* blocks promised to the fork */
    int32_t n_spare;
};

struct runnable {
    struct group *group;
    struct seq *seq;
    bool has_room;    /* for its next position */
    bool logits;      /* its last row's are computed in this step */
    int32_t n_scores; /* rows before that whose logits score the prompt */
};

struct engine {
    struct engine_args args;
    int32_t *eos; /* copied */
    int32_t block_tokens, watermark;
    int32_t kv_groups;                /* of the layout */
    int32_t alive_max[KV_GROUPS_MAX]; /* blocks of a sequence that can be in use at once */
    struct kvpool *pool;
    struct prefix *prefix; /* NULL: off */
    struct sampler *sampler;
    struct grammars *grammars;
    struct slots *groups;
    struct list list;
    int32_t logits_max;
    int32_t live_seqs; /* of all groups: what the arrays below are sized for */
    struct runnable *run;
    struct plan_item *items;
    int32_t cap_run;
    int32_t rotate;
    struct plan_cost cost;
    /* the batch */
    int32_t *ids, *positions, *seq_of, *logits_rows;
    const int32_t **tables; /* [kv_groups][max_batch] */
    uint8_t *is_long;       /* [sequences of the batch] */
    float *logits;
    int32_t *recount; /* [blocks] scratch of engine_check() */
    int64_t prefix_hit_tokens_total, preemptions_total;
};

/* engine_group.c */
struct group *group_get(struct engine *e, group_id id); /* asserts that it is live */
void group_move(struct group *g, enum group_phase to);
void group_drop_blocks(struct engine *e, struct group *g, bool keep);
/* Tells the owner and takes the group out of all further steps. */
void group_fail(struct engine *e, struct group *g, enum status status, const char *why);
/* The lead has all of `target`: every live choice becomes a sequence of its own. */
void group_fork(struct engine *e, struct group *g);

/* engine_seq.c */
int32_t blocks_for(const struct engine *e, int32_t tokens);
void engine_drop_block(struct engine *e, int32_t block);  /* gives up a reference */
bool engine_take_block(struct engine *e, int32_t *block); /* evicts; never preempts */
void seq_drop_blocks(struct engine *e, struct group *g, struct seq *s, bool keep);
void seq_enter_blocks(struct engine *e, struct group *g, struct seq *s);
/* Makes room for position `computed`: grows the table, copies a block that others share, preempts
 * the youngest. False when the group itself had to go, or in the prefill role has to wait. */
bool seq_make_room(struct engine *e, struct group *g, struct seq *s);
/* In the prefill role: cannot go on before it has another block. */
bool seq_wants_block(const struct engine *e, const struct seq *s);
/* How many of `tokens` positions from `computed` on have blocks, taking free ones but preempting
 * nobody. */
int32_t seq_extend(struct engine *e, struct group *g, struct seq *s, int32_t tokens);
/* Gives back the blocks that no window will reach any more, nor a handoff. */
void seq_trim(struct engine *e, struct group *g, struct seq *s);
/* The sequence stands on a node of the prefix index, and on that before no more. */
void seq_stand_on(struct engine *e, struct seq *s, int32_t node);
static inline int32_t *seq_table(const struct group *g, const struct seq *s, int32_t kv_group)
{
    return s->table + (size_t)kv_group * (size_t)g->cap_blocks;
}
static inline struct prefix_seq seq_in_prefix(const struct group *g, const struct seq *s)
{
    return (struct prefix_seq){
        .salt = g->salt, .ids = s->ids, .table = s->table, .stride = g->cap_blocks};
}
void engine_copy_block(struct engine *e, int32_t from, int32_t to);
struct seq_pick {
    const float *logits;
    int32_t choice;
    struct msg_token *out;
};
/* Adds a token and notes whether it ends the choice. */
void seq_append(struct engine *e, struct group *g, struct seq *s, int32_t id);
/* Ends a choice that its known tokens end already. */
void seq_note_finish(struct engine *e, struct group *g, struct seq *s);
/* Chooses the next token from `logits`; says it, or holds it where credit is short. */
void seq_sample(struct engine *e, struct group *g, struct seq *s, const float *logits);
/* The same without the saying, for one choice. */
enum status seq_pick(struct engine *e, struct group *g, struct seq *s, struct seq_pick *p,
                     struct error *err);
void seq_flush(struct engine *e, struct group *g, struct seq *s);
bool seq_can_flush(const struct group *g, const struct seq *s);
/* engine_score.c: row p of a prompt scores its id p + 1. */
static inline bool group_scores_due(const struct group *g)
{
    return g->score_at > 0 && g->score_at < g->n_prompt;
}
/* How many of `tokens` rows may be run, given `spare` logits rows beyond one of its own. */
int32_t score_limit(const struct runnable *r, int32_t tokens, int32_t spare);
/* The rows of the chunk up to `end` that score go to logits_rows; returns how many. `row`: its
 * first. */
int32_t score_rows(const struct runnable *r, int32_t end, int32_t row, int32_t *logits_rows);
/* Says the scores; false: the logits were bad, and the group has failed. */
bool score_say(struct engine *e, const struct runnable *r, const float *logits);
static inline int32_t seq_need(const struct group *g, const struct seq *s)
{
    return (g->phase == GROUP_PREFILLING ? g->target : s->n_ids) - s->computed;
}

#endif
