/* What is served: the model's name, and texts to ids within its context.
 *
 * What cannot fit the context, whatever its ids are, is refused by its length. From any thread, but
 * for router_note_context(). */
#include <stdio.h>
#include <string.h>

#include "base/rng.h"
#include "router/router.h"

#define TEXT_BYTES_MIN (256u << 10) /* this much is always looked at */

void router_note_context(struct router *r)
{
    const struct cluster *c = core_cluster(r->core);
    int64_t asked = r->config->model.max_context;
    int32_t own = asked > 0 && asked < r->model_context ? (int32_t)asked : r->model_context;
    atomic_store(&r->max_context, c->max_context > 0 ? c->max_context : own);
}

int32_t router_max_context(const struct router *r)
{
    return atomic_load(&r->max_context);
}

bool prompt_check_model(const struct router *r, const char *model, struct api_error *err)
{
    if (!model || !model[0] || strcmp(model, r->config->model.name) == 0)
        return true;
    return api_fail(err, 404, "model_not_found", "model", "The model `%.*s` does not exist.",
                    API_NAME_BYTES_MAX, model);
}

size_t prompt_bytes_max(const struct router *r)
{
    /* Normalizers shrink some texts, hence the factor. */
    size_t most = (size_t)router_max_context(r) * (4 * r->token_bytes_max + 1);
    return most > TEXT_BYTES_MIN ? most : TEXT_BYTES_MIN;
}

static size_t bytes_of_content(const json *content)
{
    size_t n = json_str_len(content);
    for (size_t i = 0; i < json_count(content); i++) {
        const json *part = json_at(content, i);
        n += json_str_len(part) + json_str_len(json_get(part, "text"));
    }
    return n;
}

bool prompt_check_chat(const struct router *r, const json *messages, struct api_error *err)
{
    size_t bytes = 0, most = prompt_bytes_max(r);
    for (size_t i = 0; i < json_count(messages); i++)
        bytes += bytes_of_content(json_get(json_at(messages, i), "content"));
    return bytes <= most ||
           api_fail(err, 400, "context_length_exceeded", "messages",
                    "This model's maximum context length is %d tokens. However, your messages "
                    "contain %zu bytes of text. Please reduce the length of the messages.",
                    router_max_context(r), bytes);
}

bool prompt_encode(const struct router *r, struct api_text_ref text, unsigned flags,
                   struct ids *out, struct api_error *err)
{
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

void router_choose_id(const char *given, char id[MSG_REQUEST_ID_MAX])
{
    size_t n = given ? strlen(given) : 0;
    bool fit = n > 0 && n < MSG_REQUEST_ID_MAX;
    for (size_t i = 0; i < n && fit; i++)
        fit = given[i] > ' ' && given[i] < 0x7f && !strchr("\"\\=", given[i]);
    if (fit)
        memcpy(id, given, n + 1);
    else
        snprintf(id, MSG_REQUEST_ID_MAX, "req-%016llx%016llx", (unsigned long long)rng_entropy(),
                 (unsigned long long)rng_entropy());
}
