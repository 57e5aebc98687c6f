/* link: baton_model */
#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include "kernels/ops.h"
#include "model/config.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* What is accepted keeps the bounds that everything later relies on. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct model_config c;
    struct error err;
    float inv_freq[OPS_HEAD_DIM_MAX / 2];
    if (model_config_parse((const char *)data, size, &c, &err))
        return 0;
    if (c.vocab < 1 || c.hidden < 1 || c.layers < 1 || c.layers > MODEL_LAYERS_MAX || c.heads < 1 ||
        c.kv_heads < 1 || c.heads % c.kv_heads != 0 || c.ffn < 1 || c.max_context < 1 ||
        c.head_dim < 2 || c.head_dim % 2 != 0 || c.head_dim > OPS_HEAD_DIM_MAX ||
        (int64_t)c.heads * c.head_dim > (1 << 18) || c.bos >= c.vocab || c.n_eos > MODEL_EOS_MAX)
        abort();
    for (int32_t i = 0; i < c.n_eos; i++) {
        if (c.eos[i] < 0 || c.eos[i] >= c.vocab)
            abort();
    }
    for (int i = 0; i < 2 * MODEL_ROPES; i++) {
        const struct rope_config *r = &c.ropes[i / 2];
        if (r->dim < 2 || r->dim > OPS_HEAD_DIM_MAX || r->dim % 2 != 0)
            abort();
        model_rope_frequencies(r, i % 2, inv_freq);
        for (int32_t k = 0; k < r->dim / 2; k++) {
            if (!isfinite(inv_freq[k]))
                abort();
        }
    }
    if (model_config_parameters(&c) == 0)
        abort();
    return 0;
}
