/* link: baton_tokenizer */
/* Input: a template, then, after a NUL byte, a JSON object of variables (a built-in one when there
 * is none). Whatever both are, rendering ends within its bounds, and the spans of a result cover
 * its text. */
#include <assert.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "tokenizer/template.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const char usual[] =
    "{\"messages\":[{\"role\":\"system\",\"content\":\"a\"},{\"role\":\"user\",\"content\":\"b "
    "<|x|>\"},"
    "{\"role\":\"assistant\",\"content\":null,\"tool_calls\":[{\"function\":{\"name\":\"f\","
    "\"arguments\":{\"k\":1.5}}}]}],"
    "\"tools\":[{\"type\":\"function\",\"function\":{\"name\":\"f\",\"parameters\":{\"properties\":"
    "{\"k\":{\"type\":\"number\"}}}}}],"
    "\"add_generation_prompt\":true,\"s\":\" h\\u00e9 \",\"n\":null,\"i\":3}";

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const char *text = (const char *)data, *vars = usual;
    size_t len = size, vars_len = sizeof usual - 1;
    const char *nul = size > 0 ? memchr(text, 0, size) : NULL;
    if (nul != NULL) {
        len = (size_t)(nul - text);
        vars = nul + 1;
        vars_len = size - len - 1;
    }
    struct chat_template *t = NULL;
    struct error err;
    json *root = NULL;
    if (template_parse(text, len, &t, &err) != ST_OK)
        return 0;
    if (json_read(vars, vars_len, &root, &err) != ST_OK)
        root = NULL;
    for (int mutation = 0; mutation < 2; mutation++) {
        struct template_args args = {.variables = root,
                                     .bos_token = "<s>",
                                     .has_now = true,
                                     .now_unix_s = 1736942400,
                                     .allow_mutation = mutation == 1,
                                     .max_steps = 100000,
                                     .max_output_bytes = 1 << 20};
        struct template_result r = {0};
        if (template_render(t, &args, &r, &err) != ST_OK)
            continue;
        size_t sum = 0;
        for (size_t i = 0; i < r.n_spans; i++)
            sum += r.spans[i].len;
        assert(sum == r.text.len);
        template_result_fini(&r);
    }
    template_free(t);
    json_free(root);
    return 0;
}
