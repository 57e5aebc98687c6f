/* link: baton_model */
/* Metadata of a GGUF file to a model's table, and its tensors against what the table calls for. */
#include <stdlib.h>
#include <string.h>

#include "formats/weight_source.h"
#include "model/config_internal.h"
#include "model/model_impl.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct checker {
    const struct weight_source *source;
    size_t found;
};

static enum status check(void *ctx, const struct weight_spec *s)
{
    struct checker *c = ctx;
    struct error err = {0};
    const struct weight *w = weights_find(c->source, s);
    if (weights_check(w, s, "fuzz", &err) && !err.text[0])
        abort();
    c->found += w != NULL;
    return ST_OK;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct model_config config;
    struct weight_source *source;
    struct error err = {0};
    struct weight_bytes in = {.bytes = data, .len = size};
    if (size < 4 || memcmp(data, "GGUF", 4) != 0 || weight_source_open_bytes(&in, &source, &err))
        return 0;
    if (config_from_gguf(source, &config, &err)) {
        if (!err.text[0])
            abort();
    } else {
        struct checker c = {.source = source};
        weights_list(&config, NULL, check, &c);
        if (config.layers < 1 || config.heads % config.kv_heads != 0 || config.kv_layers < 1)
            abort();
    }
    weight_source_close(source);
    return 0;
}
