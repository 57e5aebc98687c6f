/* What is served: the model's name, and texts to ids within its context. */
#include <string.h>

#include "router/router.h"

int32_t router_max_context(const struct router *r)
{
    const struct cluster *c = core_cluster(r->core);
    int64_t asked = r->config->model.max_context;
    if (c->max_context > 0)
        return c->max_context;
    return asked > 0 && asked < r->model_context ? (int32_t)asked : r->model_context;
}

bool prompt_check_model(const struct router *r, const char *model, struct api_error *err)
{
    if (!model || !model[0] || strcmp(model, r->config->model.name) == 0)
        return true;
    return api_fail(err, 404, "model_not_found", "model", "The model `%.*s` does not exist.",
                    API_NAME_BYTES_MAX, model);
}

bool prompt_encode(const struct router *r, struct api_text_ref text, unsigned flags,
                   struct ids *out, struct api_error *err)
{
    /* Tokenizing runs on the loop: a text that cannot fit whatever its ids are is not tokenized.
     * Normalizers shrink some texts, hence the factor. */
    size_t least = text.len / (4 * r->token_bytes_max + 1);
    int32_t most = router_max_context(r);
    if (most > 0 && least > (size_t)most)
        return api_fail(err, 400, "context_length_exceeded", "prompt",
                        "This model's maximum context length is %d tokens. However, your prompt "
                        "contains at least %zu input tokens. Please reduce the length of the input "
                        "prompt.",
                        most, least);
    struct error why = {0};
    enum status st = tokenizer_encode(r->tokenizer, text.text, text.len, flags, out, &why);
    if (st == ST_OK)
        return true;
    api_fail_status(err, st, why.text);
    return false;
}
