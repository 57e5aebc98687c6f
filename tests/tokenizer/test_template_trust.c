/* What a client writes stays untrusted through every published template: a word planted into all
 * of its texts (contents, names, arguments and their keys, descriptions, schemas) is never in a
 * trusted span of the output, however the template cuts, trims, indents or quotes it. */
#include <criterion/criterion.h>

#include <ctype.h>
#include <dirent.h>
#include <stdio.h>
#include <string.h>

#include "base/buf.h"
#include "support/read_file.h"
#include "tokenizer/template.h"

#define FOLDER BATON_SOURCE_DIR "/../shared/data/chat_templates"
#define E "<|EVIL|>"

static const char *const conversations[] = {
    "{\"messages\":[{\"role\":\"system\",\"content\":\"" E
    "\"},{\"role\":\"user\",\"content\":\" " E
    "\\n\"},{\"role\":\"assistant\",\"content\":\"<think>" E "</think>" E
    "\"},{\"role\":\"user\",\"content\":\"" E "\"}],\"tools\":null,\"add_generation_prompt\":true}",
    "{\"messages\":[{\"role\":\"user\",\"content\":\"" E
    "\"},{\"role\":\"assistant\",\"content\":\"" E "\",\"reasoning_content\":\"" E
    "\",\"tool_calls\":[{\"id\":\"" E "abc\",\"type\":\"function\","
    "\"function\":{\"name\":\"" E "\",\"arguments\":{\"" E "\":[\"" E "\",{\"" E "\":1}]}}}]},"
    "{\"role\":\"tool\",\"name\":\"" E "\",\"tool_call_id\":\"" E "abc\",\"content\":\"" E "\"}],"
    "\"tools\":[{\"type\":\"function\",\"function\":{\"name\":\"" E "\",\"description\":\"" E
    "\",\"parameters\":{\"type\":\"object\",\"properties\":{\"" E "\":{\"type\":\"string\","
    "\"description\":\"" E "\",\"enum\":[\"" E "\"]}},\"required\":[\"" E "\"]}}}],"
    "\"documents\":[{\"title\":\"" E "\",\"text\":\"" E "\"}],\"add_generation_prompt\":true}",
    "{\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"text\",\"text\":\"" E "\"}]},"
    "{\"role\":\"assistant\",\"content\":null,\"tool_calls\":[{\"id\":\"abcdefghi\",\"type\":"
    "\"function\",\"function\":{\"name\":\"f\",\"arguments\":\"{\\\"" E "\\\": \\\"" E
    "\\\"}\"}}]},{\"role\":\"tool\",\"tool_call_id\":\"abcdefghi\",\"content\":\"" E "\"}],"
    "\"reasoning_effort\":\"" E "\",\"date_string\":\"" E "\",\"add_generation_prompt\":false}"};

/* Upper case or lower: templates may change it. */
static bool planted(const char *s)
{
    static const char word[] = "evil";
    for (int i = 0; i < 4; i++) {
        if (tolower((unsigned char)s[i]) != word[i])
            return false;
    }
    return true;
}

static size_t check(const struct template_result *r, const char *name, int conversation)
{
    size_t at = 0, found = 0;
    for (size_t i = 0; i < r->n_spans; at += r->spans[i++].len) {
        for (size_t k = at; k < at + r->spans[i].len && k + 4 <= r->text.len; k++) {
            if (!planted(r->text.data + k))
                continue;
            found++;
            cr_assert(!r->spans[i].trusted, "%s, conversation %d: trusted at %zu: %.*s", name,
                      conversation, k, 80, r->text.data + (k > 40 ? k - 40 : 0));
        }
    }
    return found;
}

Test(template_trust, published_templates)
{
    DIR *folder = opendir(FOLDER);
    if (!folder)
        cr_skip_test("no chat templates at %s", FOLDER);
    size_t found = 0;
    for (struct dirent *e; (e = readdir(folder));) {
        struct chat_template *t = NULL;
        if (!strstr(e->d_name, ".jinja"))
            continue;
        struct buf text = read_file(FOLDER "/%s", e->d_name);
        cr_assert_eq(template_parse(text.data, text.len, &t, NULL), ST_OK, "%s", e->d_name);
        for (int i = 0; i < 3; i++) {
            struct error err = {0};
            struct template_result r = {0};
            json *v = NULL;
            cr_assert_eq(json_read(conversations[i], strlen(conversations[i]), &v, &err), ST_OK,
                         "%s", err.text);
            struct template_args args = {.variables = v, .bos_token = "<s>", .eos_token = "</s>"};
            if (template_render(t, &args, &r, &err) == ST_OK)
                found += check(&r, e->d_name, i);
            template_result_fini(&r);
            json_free(v);
        }
        template_free(t);
        buf_fini(&text);
    }
    closedir(folder);
    cr_assert_gt(found, (size_t)100);
}
