/* The inside of a model, shared by weights.c (binds tensors), forward.c (runs) and fingerprint.c.
 * Private to this folder.
 *
 * Owner: struct model owns the checkpoint (and with it every matrix's data), the converted biases
 * and the scratch memory. Thread: after load everything but the scratch is read-only; the scratch
 * belongs to the running forward.
 */
#ifndef MODEL_MODEL_IMPL_H
#define MODEL_MODEL_IMPL_H

#include "formats/safetensors.h"
#include "model/model.h"

struct layer_weights {
    struct matrix attn_norm, mlp_norm;
    struct matrix q, k, v, o, gate, up, down;
    const float *q_bias, *k_bias, *v_bias, *o_bias, *gate_bias, *up_bias, *down_bias; /* or NULL */
};

struct model_weights {
    struct matrix embed, norm, head;
    struct layer_weights *layers;
    float *biases;  /* all of them, as fp32 */
    uint64_t bytes; /* of the tensors in use */
    size_t tensors; /* in use */
};

/* Activations of up to max_tokens rows. Row strides are dense. */
struct scratch {
    float *memory;
    float *x;                            /* [tokens, hidden] residual stream */
    float *h;                            /* [tokens, hidden] normalised */
    float *qkv;                          /* [tokens, (heads + 2 kv_heads) * head_dim] */
    float *attn;                         /* [tokens, heads * head_dim] */
    float *gate;                         /* [tokens, ffn], then silu(gate) * up */
    float *up;                           /* [tokens, ffn] */
    float *x_sel;                        /* [selected, hidden] rows of x that want logits */
    float *h_sel;                        /* [selected, hidden] */
    int32_t *sel_positions, *sel_seq_of; /* [selected] */
};

struct model {
    struct model_config config;
    struct generation_defaults defaults;
    struct checkpoint *checkpoint;
    struct model_weights weights;
    struct scratch scratch;
    struct fingerprint fingerprint;
    const struct ops *ops;
    struct team *team;
    float *inv_freq; /* [head_dim / 2] */
    float attention_factor;
    int32_t max_tokens, max_logits;
};

/* Finds every tensor that the config calls for, checks type, shape and finiteness, and converts
 * biases. `dir` names the checkpoint in messages. */
enum status weights_bind(const struct model_config *c, const struct checkpoint *ckpt,
                         const char *dir, struct model_weights *out, struct error *err);
void weights_fini(struct model_weights *w);
/* Whether type t is one that the ops compute with. */
bool weights_dtype_of(enum tensor_type t, enum dtype *out);
/* A tensor that a config calls for. */
struct weight_spec {
    char name[96];
    int32_t rows, cols; /* cols 0: a vector of `rows` */
    bool is_bias, is_norm;
    size_t offset; /* of its struct matrix or float pointer in its owner */
    int32_t layer; /* its owner: this layer, or -1: struct model_weights */
};
/* Visits them: start with *cursor 0; false past the end. */
bool weights_spec(const struct model_config *c, size_t *cursor, struct weight_spec *out);

/* Presence (t may be NULL), shape and type of one tensor; `dir` names the checkpoint in messages.
 */
enum status weights_check_tensor(const struct tensor *t, const struct weight_spec *s,
                                 const char *dir, enum dtype *dtype, struct error *err);

/* Index of the first NaN or infinity among n elements, or n. */
size_t weights_find_nonfinite(const void *data, enum dtype dtype, size_t n);

struct fingerprint fingerprint_compute(const struct model_config *c, const struct checkpoint *ckpt);

#endif
