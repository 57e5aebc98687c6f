/* The inside of a model, shared by weights*.c (find and bind tensors), forward.c, mixer_*.c and
 * mlp.c (run) and fingerprint.c. Private to this folder.
 *
 * Owner: struct model owns the weight source (and with it the data of every matrix that lies there
 * as it is computed with), the memory of converted ones, and the scratch memory. Thread: after load
 * everything but the scratch is read-only; the scratch belongs to the running forward.
 *
 * It is over 150 lines because weights, scratch and blocks are one state.
 */
#ifndef MODEL_MODEL_IMPL_H
#define MODEL_MODEL_IMPL_H

#include "base/work.h"
#include "formats/weight_source.h"
#include "kernels/gemm_share.h"
#include "model/model.h"
#include "model/weights_list.h"

/* Activations of up to max_tokens rows. Row strides are dense. */
struct scratch {
    float *memory; /* in large pages: gemms write it across many rows at once */
    size_t bytes;
    float *x;     /* [tokens, hidden] residual stream */
    float *h;     /* [tokens, hidden] normalised */
    float *block; /* [tokens, hidden] a block's output, where it is normalised before it is added */
    float *qkv;   /* [tokens, qkv_width] queries, keys, values */
    float *angles[MODEL_ROPES]; /* [tokens, dim] of positions (op_rope.angles) */
    float *attn;                /* [tokens, heads * dim of what attention gives] */
    float *split;               /* where parts of one row's attention meet (op_attention.scratch) */
    size_t split_bytes;
    float *latent;   /* [tokens, ...] queries' latents, and attention's output in latent form */
    float *gate;     /* [rows, ffn], then the gated unit's output */
    float *up;       /* [rows, ffn] */
    float *router;   /* [tokens, experts] */
    float *weight;   /* [tokens, top_k] */
    float *pair_in;  /* [pairs, hidden or what experts read], where they read floats */
    float *pair_out; /* [pairs, hidden or what experts give] */
    struct rows8 x8; /* what gemms by packed weights read; of as many rows as any of them has;
                        `paired`: wherever there are two spans of columns to be paired */
    uint16_t *x16;   /* the same of gemms by weights that round */
    float *x_sel;    /* [selected, hidden] rows of x that want logits */
    float *h_sel;    /* [selected, hidden] */
    int32_t *sel_positions, *sel_seq_of; /* [selected] */
    int32_t *expert;                     /* [tokens, top_k] */
    int32_t *pair_row;                   /* [pairs] the token of each pair, sorted by expert */
    int32_t *pair_of;                    /* [tokens, top_k] the pair of each choice */
    int32_t *expert_end;                 /* [experts] pairs of the experts up to this one */
    const float *ready;         /* what x8 and x16 were made of: rows of ready_dim elements */
    const int32_t *ready_order; /* of x8 (struct packed) */
    const uint16_t *ready16;    /* x16, or where else a gated unit has put rows in bf16 */
    int32_t ready_dim;
    uint64_t expert_bytes; /* of chosen experts, in all forwards */
};

struct profile; /* profile.c */
void profile_enter(struct profile *p,
                   int part); /* the calling thread is that member, for a forward */
void profile_meet(struct team *team);
void profile_ran(struct profile *p, int64_t ns);

struct model {
    struct model_config config;
    struct generation_defaults defaults;
    struct weight_source *source;
    struct model_weights weights;
    struct scratch scratch;
    struct fingerprint fingerprint;
    const struct ops *ops;
    struct team *team;
    struct work *work;               /* the gemms of a forward */
    struct profile *profile;         /* NULL: off */
    float *inv_freq[MODEL_ROPES][2]; /* [dim / 2], short and long */
    float *inv_freq_memory;
    int32_t rope_first[MODEL_ROPES]; /* the first layer that has it */
    int32_t max_tokens, max_logits;
};

/* What rows of so many columns are rounded to. */
static inline struct rows8 scratch_x8(const struct scratch *s, int32_t cols)
{
    struct rows8 x8 = s->x8;
    x8.spans = (cols + PACKED_SPAN - 1) / PACKED_SPAN;
    x8.paired = s->x8.paired && x8.spans % 2 == 0;
    x8.whole = s->x8.whole && x8.spans % 2 == 0;
    return x8;
}

/* Widths of scratch rows. */
int32_t model_qkv_width(const struct model_config *c);
int32_t model_attention_width(const struct model_config *c);
/* Rows of pairs that one forward may have, at most. */
size_t model_pairs_max(const struct model_config *c, int32_t tokens);

/* One forward, as every member of the team sees it. */
struct run {
    struct model *m;
    const struct batch *batch;
    const struct model_kv *kv;
    float *logits;
    model_layer_done_fn *done;
    void *ctx;
    struct op_rows all, selected; /* rows of the batch; those that go through the last layer */
    bool narrow;                  /* selected are logits_rows, packed; else they are all */
};

/* This member's place in the team. */
struct member {
    int part, parts;
};

/* A layer's turn. */
struct layer_run {
    const struct run *r;
    struct member me;
    int layer;
    const struct layer_config *config;
    const struct layer_weights *w;
    bool narrow;                /* only the selected rows go on after keys and values are stored */
    const struct op_rows *rows; /* that go on */
    float *x, *h;               /* of these rows */
    const float *in;            /* what the attention block reads, of all rows */
    const float *in_sel;        /* and of these rows */
    bool in_is_ready;           /* `in`, until anything else is made ready: see run_in_ready() */
};

static inline void run_meet(const struct run *r)
{
    if (r->m->profile)
        profile_meet(r->m->team);
    else
        team_barrier(r->m->team);
}
/* Cut while it is done (base/work.h): at most WORK_SLOTS of them between two meetings. */
void run_gemm(const struct layer_run *l, struct op_gemm a);
/* Whether this one may have a unit (op_gemm.unit) with that second matrix. */
bool run_gates(const struct layer_run *l, const struct op_gemm *a, const struct matrix *up);
/* Cut evenly beforehand: for small ones, any number of them between two meetings. */
void run_small_gemm(const struct layer_run *l, struct op_gemm a);
/* Where a model has weights that want them: makes integers, or bf16, of x, dense rows, for the
 * gemms that read it next, that by `w` first of all, and meets. All members must have met since the
 * gemms before. A gemm by weights whose columns are in another order makes the integers anew. */
void run_ready(const struct layer_run *l, const float *x, int32_t tokens, const struct matrix *w);
/* The same of l->in, as the first thing that a block does: the norm may have done it. */
void run_in_ready(const struct layer_run *l, int32_t tokens, const struct matrix *w);
/* Who writes x so by an op of its own, in bf16 at x16, says it here. Does not meet: all must have
 * met before, since gemms read what was ready then, and must meet behind it. */
void run_is_ready(const struct layer_run *l, const float *x, const struct matrix *w,
                  const uint16_t *x16);
void run_norm(const struct layer_run *l, struct op_rmsnorm a);
void run_rope(const struct layer_run *l, struct op_rope a, const struct op_rows *rows);
void run_store(const struct layer_run *l, const float *k, const float *v, int32_t stride);
/* Keys and values of all rows are stored: tells the caller, packs the rows that go on. Meets. */
void run_stored(const struct layer_run *l);
void run_attend(const struct layer_run *l, struct op_attention a);
/* Where a block's output goes: added to x at once, or aside to be normalised first. */
struct op_gemm run_block_out(const struct layer_run *l);

/* The mixers: read l->in, store keys and values, and leave their output as run_block_out() says. A
 * barrier stands behind each. */
void mixer_gqa(const struct layer_run *l);
void mixer_latent(const struct layer_run *l);
void mixer_moa(const struct layer_run *l);
/* The feed-forward block, from l->in to where run_block_out() says. */
void mlp_dense(const struct layer_run *l);
void mlp_moe(const struct layer_run *l);
/* Mixtures (moe.c). Chooses experts for `tokens` rows of x and sorts the pairs by expert. Meets
 * before and after. */
struct pair_list {
    int32_t pairs, experts;
    const int32_t *expert_end;
};
struct pair_list moe_route(const struct layer_run *l, const struct matrix *router, const float *x,
                           int32_t tokens);
/* A product of each pair's row with its expert's matrix. */
struct pair_product {
    const struct matrix *w;   /* of the first expert; the next one's is `step` bytes on */
    const float *const *bias; /* the same, or NULL */
    size_t step;
    float *out; /* [pairs, w.rows] */
};
/* Products of the same rows, as one list of work (kernels/gemm_share.h). Pair i's row of x is
 * row[i], or i where that is NULL. All members must have met before; meets after. */
void moe_gemm(const struct layer_run *l, const struct pair_list *p, const float *x,
              const int32_t *row, const struct pair_product *products, int n);

/* A head, and layers of multi-token prediction, that the checkpoint leaves out. */
void weights_settle(const struct weight_source *source, struct model_config *c);
/* Finds every tensor that the config calls for, checks type, shape and finiteness, and converts,
 * with the team, what is not computed with as it lies there. `dir` names the checkpoint. */
struct weights_args {
    const struct model_config *config;
    const struct weight_source *source;
    const char *dir;
    struct team *team;
    enum model_weights_form form;
    const char *cache; /* a folder, "model", or NULL */
    struct stop *stop; /* or NULL */
    struct fingerprint fingerprint;
    bool rounds; /* gemms by bf16 can read bf16 */
    bool panels; /* and want such weights in panels */
};
enum status weights_bind(const struct weights_args *args, struct model_weights *out,
                         struct error *err);
void weights_fini(struct model_weights *w);
/* Presence (w may be NULL), shape and type of one tensor; messages name `dir`. */
enum status weights_check(const struct weight *w, const struct weight_spec *s, const char *dir,
                          struct error *err);
/* The tensor of a spec under any of the prefixes that files use; NULL: none. */
const struct weight *weights_find(const struct weight_source *source, const struct weight_spec *s);

/* What matrices are converted to: fp16, or fp32 where all of them are small. */
enum dtype weights_converted_dtype(const struct weight_source *source);
/* Whether integers stay integers: where they are not small. */
bool weights_are_packed(const struct weight_source *source, enum model_weights_form form);
/* Whether a weight can be packed for this spec, and in what form: all of the tensor's rows, fp16
 * scales, no place. */
bool weights_pack(const struct weight *w, const struct weight_spec *s, struct packed *out);
/* Its place among the source's weights. */
size_t weights_index(const struct weight_source *source, const struct weight *w);

/* Index of the first NaN or infinity among n elements, or n. */
size_t weights_find_nonfinite(const void *data, enum dtype dtype, size_t n);

struct fingerprint fingerprint_compute(const struct model_config *c,
                                       const struct weight_source *source);

#endif
