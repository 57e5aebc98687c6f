/* link: baton_router */
/* Request bodies: the first byte chooses between completions and chats, the rest is the body. */
#include <assert.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "router/api.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const struct api_rules rules = {
        .n_max = 8, .stop_max = 4, .logprobs_max = 5, .vocab = 1000};
    if (size == 0)
        return 0;
    struct api_request r;
    struct api_error err = {0};
    struct buf out = {0};
    struct api_text_ref body = {(const char *)data + 1, size - 1};
    if (api_parse(&r, data[0] == 'c' ? API_CHAT : API_COMPLETION, &rules, body, &err)) {
        assert(r.n >= 1 && r.n <= rules.n_max && r.n_stops <= 4 && r.sampling.logprobs <= 5);
        assert(r.sampling.temperature >= 0 && r.sampling.temperature <= 2);
        for (size_t i = 0; i < r.n_prompts; i++) {
            for (uint32_t k = 0; k < r.prompts[i].ids.n; k++)
                assert(r.prompts[i].ids.v[k] >= 0 && r.prompts[i].ids.v[k] < rules.vocab);
        }
        api_request_fini(&r);
    } else {
        assert(err.status >= 400 && err.code && memchr(err.message, 0, sizeof err.message));
        api_render_error(&out, &err);
        assert(!out.failed);
    }
    buf_fini(&out);
    return 0;
}
