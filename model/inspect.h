/* What a model folder holds and what serving it costs, for `baton inspect`: facts only, printing is
 * the caller's.
 *
 * Nothing is loaded: files are mapped, headers checked, weights not read. A folder that cannot be
 * served still gives what could be found out, with the reasons in `problems`. Plain data, no
 * ownership.
 */
#ifndef MODEL_INSPECT_H
#define MODEL_INSPECT_H

#include <stdbool.h>
#include <stdint.h>

#include "base/status.h"
#include "kernels/dtype.h"
#include "model/config.h"

#define INSPECT_PROBLEMS_MAX 8
#define INSPECT_FORMATS_MAX 24

struct model_facts {
    bool has_config;     /* `config` and everything computed from it is valid */
    bool has_checkpoint; /* tensors, files and bytes are valid */
    struct model_config config;
    struct generation_defaults defaults;
    uint64_t parameters;
    uint64_t active_parameters; /* read per token: for a dense model all but an untied embedding */
    int32_t expert_layers;      /* layers with a mixture of experts */
    uint64_t tensors, tensors_unused, files;
    uint64_t tensors_converted, tensors_packed; /* of those in use, when loaded */
    bool packs;                                 /* integers stay integers */
    struct {
        char name[40];
        uint64_t tensors, bytes; /* as stored */
    } formats[INSPECT_FORMATS_MAX];
    int n_formats;
    char quantization[32];                       /* "gptq", "gguf" ...; "": none */
    enum dtype converted_to;                     /* of what is not computed with as it lies there */
    uint64_t weight_bytes;                       /* of the tensors in use, once loaded */
    uint64_t kv_bytes_per_token[DTYPE_KV_COUNT]; /* over all layers that store some */
    struct {
        int32_t layers, window; /* of equal layers; window 0: every token is kept */
        uint64_t bytes_per_token[DTYPE_KV_COUNT];
    } kv_kinds[KV_GROUPS_MAX];
    int n_kv_kinds;
    uint64_t
        kv_bytes_at_max_context[DTYPE_KV_COUNT]; /* of one sequence, of windows their last tokens */
    /* weights and that */
    uint64_t memory_at_max_context_bytes[DTYPE_KV_COUNT];
    struct {
        bool tokenizer_json, tokenizer_config, chat_template_jinja, generation_config;
    } files_present;
    char problems[INSPECT_PROBLEMS_MAX][480]; /* why it cannot be served */
    int n_problems, n_problems_hidden;        /* listed; found beyond those */
};

/* ST_NOT_FOUND when `dir` is no folder; else ST_OK, however broken its content. */
enum status model_inspect(const char *dir, struct model_facts *out, struct error *err);
const char *model_rope_name(enum rope_kind kind); /* "default" "linear" "llama3" */
/* "grouped queries" "latent" "mixture of heads" */
const char *model_attention_name(enum attention_kind kind);

#endif
