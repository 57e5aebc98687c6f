#include "router/template_habits.h"

#include <string.h>

#include "tokenizer/template.h"

#define NEEDLE "needle5312"
#define USER "{\"role\":\"user\",\"content\":\"u\"}"
#define CALL(content, arguments)                                                                   \
    "{\"messages\":[" USER ",{\"role\":\"assistant\",\"content\":" content                         \
    ",\"tool_calls\":[{\"id\":\"abcdefghi\",\"type\":\"function\",\"function\":{\"name\":\"f\","   \
    "\"arguments\":" arguments "}}]},{\"role\":\"tool\",\"name\":\"f\",\"tool_call_id\":"          \
    "\"abcdefghi\",\"content\":\"r\"}],\"tools\":[{\"type\":\"function\",\"function\":{\"name\":"  \
    "\"f\",\"description\":\"d\",\"parameters\":{\"type\":\"object\",\"properties\":{}}}}],"       \
    "\"documents\":null,\"add_generation_prompt\":true}"
#define AS_OBJECT "{\"" NEEDLE "\":1}"
#define AS_TEXT "\"{\\\"" NEEDLE "\\\":1}\""

static bool renders(const struct chat_template *t, const char *variables, const char *want)
{
    struct template_result result = {0};
    json *v = NULL;
    struct error why = {0};
    struct template_args args = {.bos_token = "", .eos_token = "", .has_now = true};
    bool found = false;
    if (json_read(variables, strlen(variables), &v, NULL) == ST_OK) {
        args.variables = v;
        found = template_render(t, &args, &result, &why) == ST_OK && result.text.len &&
                memmem(result.text.data, result.text.len, want, strlen(want)) != NULL;
    }
    template_result_fini(&result);
    json_free(v);
    return found;
}

struct template_habits template_habits_of(const struct chat_template *t, const char *text)
{
    static const char quoted[] = "\"" NEEDLE "\"";
    static const char text_chat[] =
        "{\"messages\":[{\"role\":\"user\",\"content\":\"" NEEDLE "\"}],\"tools\":null,"
        "\"documents\":null,\"add_generation_prompt\":true}";
    static const char parts_chat[] =
        "{\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"text\",\"text\":\"" NEEDLE
        "\"}]}],\"tools\":null,\"documents\":null,\"add_generation_prompt\":true}";
    struct template_habits h = {.developer = strstr(text, "developer") != NULL,
                                .thinking = strstr(text, ".thinking") != NULL};
    /* [content][arguments]: what of a call is in the text */
    static const char *const calls[2][2] = {{CALL("\"\"", AS_OBJECT), CALL("\"\"", AS_TEXT)},
                                            {CALL("null", AS_OBJECT), CALL("null", AS_TEXT)}};
    h.content_none = !renders(t, calls[0][0], NEEDLE) && !renders(t, calls[0][1], NEEDLE) &&
                     (renders(t, calls[1][0], NEEDLE) || renders(t, calls[1][1], NEEDLE));
    /* As an object they may also come out as XML: what counts is that they do come out, and not as
     * Python writes them. */
    const char *const *call = calls[h.content_none];
    bool object = renders(t, call[0], NEEDLE) && !renders(t, call[0], "'" NEEDLE "'");
    h.arguments_text = !object && renders(t, call[1], quoted);
    h.content_parts = !renders(t, text_chat, NEEDLE) && renders(t, parts_chat, NEEDLE);
    return h;
}
