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
    float inv_freq[OPS_HEAD_DIM_MAX / 2], factor;
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
    model_rope_frequencies(&c, inv_freq, &factor);
    for (int32_t i = 0; i < c.head_dim / 2; i++) {
        if (!isfinite(inv_freq[i]))
            abort();
    }
    if (model_config_parameters(&c) == 0)
        abort();
    return 0;
}
