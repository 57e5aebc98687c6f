/* Which tensors a feature table calls for, and where each goes. Private to this folder.
 *
 * weights_list() visits every weight once. A weight is a whole tensor of the file or a part of one:
 * some rows (queries of a fused projection), an expert of a stack, a transpose. What binds, counts,
 * inspects or makes checkpoints is a visitor.
 *
 * It is over 150 lines because every role has its name.
 */
#ifndef MODEL_WEIGHTS_LIST_H
#define MODEL_WEIGHTS_LIST_H

#include "kernels/ops.h"
#include "model/config.h"
#include "model/weights_cache.h"

struct expert_weights {
    struct matrix gate, up, down;
    const float *gate_bias, *up_bias, *down_bias; /* or NULL */
};

struct layer_weights {
    struct matrix attn_norm, attn_post_norm, mlp_norm, mlp_post_norm; /* those there are */
    struct matrix q, k, v, o, q_norm, k_norm;
    const float *q_bias, *k_bias, *v_bias, *o_bias; /* or NULL, as all biases */
    const float *sinks;                             /* [heads] */
    struct matrix q_a, q_a_norm, kv_a, kv_a_norm;   /* latent attention; q is its second step */
    const float *q_a_bias, *kv_a_bias;
    struct matrix *absorb_k; /* [heads] of [kv_rank, nope_dim]: keys' up-projection, transposed */
    struct matrix *absorb_v; /* [heads] of [value_dim, kv_rank] */
    struct expert_weights mlp, shared;
    struct matrix shared_gate; /* [1, hidden] */
    struct matrix router;      /* [experts, hidden] */
    const float *router_bias, *choice_bias;
    struct expert_weights *experts;
    struct matrix moa_router, *moa_in, *moa_out; /* [experts] */
};

struct mtp_weights {
    struct matrix embed, embed_norm, hidden_norm, project, norm, head;
};

struct fp8_weight;
struct fp8_list {
    struct fp8_weight **v; /* [n] each an allocation */
    size_t n, cap;
};

struct model_weights {
    struct matrix embed, norm, head;
    struct layer_weights *layers; /* [layers + mtp_layers] */
    struct mtp_weights *mtp;      /* [mtp_layers] */
    struct matrix *matrices;      /* of the arrays in layers */
    struct expert_weights *experts;
    float *floats;   /* biases and the like, as fp32 */
    void *converted; /* mapped memory of what is not computed with as it lies in the file */
    size_t converted_bytes;
    struct packed *packed;      /* of the matrices that are */
    void **owned;               /* [n_packed] memory of a matrix' own, or NULL */
    struct weights_cache cache; /* or all of them are there */
    size_t n_packed;
    struct fp8_list fp8; /* matrices in FP8 */
    bool rounds;         /* some matrix does */
    bool reads_bytes;    /* some matrix does (matrix_reads_bytes) */
    bool whole_rows;     /* rows as integers have one scale each (rows8.whole) */
    uint64_t bytes;      /* of the tensors in use; of what was rounded, as it is then */
    size_t tensors;      /* in use */
};

struct weight_spec {
    char name[128];
    int32_t rows, cols;      /* of the tensor, or of each of its experts; cols 0: a vector */
    int32_t experts, expert; /* experts > 0: the tensor is a stack of so many, and which */
    int32_t first, step;     /* the rows that are taken begin here, step apart; flip: the columns */
    int32_t take_rows, take_cols; /* what comes out; take_cols 0: a vector */
    int32_t skip;                 /* flip: rows of the tensor before the first one taken */
    bool flip;                    /* out[i][j] = tensor[skip + j][first + i * step] */
    bool is_norm;
    bool is_expert; /* only the tokens that go there read it */
    bool is_active; /* every token is multiplied with it */
    bool optional;
    bool as_floats;        /* small, and worth its precision; or not read by a gemm of whole rows */
    struct matrix *matrix; /* where it goes; one of the two, or neither in a plan */
    const float **floats;
};

typedef enum status weight_visit_fn(void *ctx, const struct weight_spec *s);
/* `w` NULL: a plan, with no place for anything. Ends at the first visit that is not ST_OK, and
 * returns that. */
enum status weights_list(const struct model_config *c, struct model_weights *w,
                         weight_visit_fn *visit, void *ctx);
/* Allocates the tables of w that weights_list() fills. */
enum status weights_alloc(const struct model_config *c, struct model_weights *w);

/* Names (weights_names.c). */
enum weight_role {
    W_EMBED,
    W_NORM,
    W_HEAD,
    W_ATTN_NORM,
    W_ATTN_POST_NORM,
    W_MLP_NORM,
    W_MLP_POST_NORM,
    W_Q,
    W_K,
    W_V,
    W_QKV,
    W_O,
    W_Q_BIAS,
    W_K_BIAS,
    W_V_BIAS,
    W_O_BIAS,
    W_Q_NORM,
    W_K_NORM,
    W_SINKS,
    W_Q_A,
    W_Q_A_BIAS,
    W_Q_A_NORM,
    W_Q_B,
    W_KV_A,
    W_KV_A_BIAS,
    W_KV_A_NORM,
    W_KV_B,
    W_K_B,
    W_V_B,
    W_GATE,
    W_UP,
    W_GATE_UP,
    W_DOWN,
    W_GATE_BIAS,
    W_UP_BIAS,
    W_DOWN_BIAS,
    W_ROUTER,
    W_ROUTER_BIAS,
    W_CHOICE_BIAS,
    W_EXPERT_GATE,
    W_EXPERT_UP,
    W_EXPERT_DOWN, /* one tensor per expert */
    W_EXPERTS_GATE,
    W_EXPERTS_UP,
    W_EXPERTS_GATE_UP,
    W_EXPERTS_DOWN, /* stacks */
    W_EXPERTS_GATE_BIAS,
    W_EXPERTS_UP_BIAS,
    W_EXPERTS_GATE_UP_BIAS,
    W_EXPERTS_DOWN_BIAS,
    W_SHARED_GATE,
    W_SHARED_UP,
    W_SHARED_GATE_UP,
    W_SHARED_DOWN,
    W_SHARED_WEIGHT,
    W_MOA_ROUTER,
    W_MOA_IN,
    W_MOA_OUT,
    W_KV,
    W_MTP_EMBED,
    W_MTP_EMBED_NORM,
    W_MTP_HIDDEN_NORM,
    W_MTP_PROJECT,
    W_MTP_NORM,
    W_MTP_HEAD,
    W_ROLES
};
/* The name's pattern: %d stands for the layer, a second one for the expert; NULL: this naming has
 * no such tensor. */
const char *weights_name(enum weight_naming naming, enum weight_role role);

#endif
