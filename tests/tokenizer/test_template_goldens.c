/* Published chat templates against the texts that Jinja2 renders, byte by byte, and the errors that
 * it raises. */
#include <criterion/criterion.h>

#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include "base/buf.h"
#include "support/read_file.h"
#include "tokenizer/template.h"

#define DATA BATON_SOURCE_DIR "/../shared/data/"

static bool have(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0;
}

static json *read_json(const char *folder, const char *name)
{
    char path[1024];
    struct error err;
    json *root = NULL;
    snprintf(path, sizeof path, "%s/%s", folder, name);
    cr_assert_eq(json_read_file(path, 16 << 20, &root, &err), ST_OK, "%s", err.text);
    return root;
}

/* The goldens were made at noon of this day, in whatever zone the template was rendered in. */
static int64_t golden_time(void)
{
    struct tm tm = {.tm_year = 125, .tm_mon = 0, .tm_mday = 15, .tm_hour = 12, .tm_isdst = -1};
    return (int64_t)mktime(&tm);
}

static enum status render(const char *text, size_t len, struct template_args args,
                          struct template_result *r, struct error *err)
{
    struct chat_template *t = NULL;
    args.has_now = true;
    args.now_unix_s = golden_time();
    enum status st = template_parse(text, len, &t, err);
    if (st == ST_OK)
        st = template_render(t, &args, r, err);
    template_free(t);
    return st;
}

/* Every byte of the client's text that names a special token must be in an untrusted span. */
static void check_spans(const struct template_result *r, const char *name)
{
    size_t sum = 0;
    for (size_t i = 0; i < r->n_spans; i++)
        sum += r->spans[i].len;
    cr_assert_eq(sum, r->text.len, "%s: spans cover the text", name);
}

static void check_item(const json *item, const json *index)
{
    const char *file = json_as_str(json_get(item, "template"), ""),
               *context = json_as_str(json_get(item, "context"), "");
    const char *error = json_as_str(json_get(item, "error"), NULL);
    char name[256];
    struct error err;
    struct template_result r = {0};
    struct buf text = read_file(DATA "chat_templates/%s", file);
    snprintf(name, sizeof name, "%s.json", context);
    json *variables = read_json(DATA "chat_templates/contexts", name);
    struct template_args args = {
        .variables = variables,
        .bos_token = json_as_str(json_get(variables, "bos_token"),
                                 json_as_str(json_get(index, "bos_token_default"), "")),
        .eos_token = json_as_str(json_get(variables, "eos_token"),
                                 json_as_str(json_get(index, "eos_token_default"), ""))};
    enum status st = render(text.data, text.len, args, &r, &err);
    if (error != NULL) {
        /* What a template raises itself is the whole text; other errors carry Python's. */
        const char *own = strncmp(error, "TemplateError: ", 15) == 0 ? error + 15 : NULL;
        cr_assert_eq(st, ST_INVALID, "%s, %s: should fail", file, context);
        cr_assert(own != NULL ? strcmp(err.text, own) == 0 : strstr(err.text, error) != NULL,
                  "%s, %s: '%s', want '%s'", file, context, err.text, error);
    } else {
        struct buf want =
            read_file(DATA "chat_goldens/%s", json_as_str(json_get(item, "golden"), ""));
        cr_assert_eq(st, ST_OK, "%s, %s: %s", file, context, err.text);
        cr_assert(r.text.len == want.len && memcmp(r.text.data, want.data, want.len) == 0,
                  "%s, %s:\n%s\nwant:\n%s", file, context, r.text.data, want.data);
        check_spans(&r, file);
        buf_fini(&want);
    }
    template_result_fini(&r);
    json_free(variables);
    buf_fini(&text);
}

Test(template_goldens, published_templates)
{
    if (!have(DATA "chat_goldens/index.json"))
        cr_skip_test("no chat goldens at %s", DATA);
    json *index = read_json(DATA "chat_goldens", "index.json");
    const json *items = json_get(index, "items");
    cr_assert_gt(json_count(items), 0);
    for (size_t i = 0; i < json_count(items); i++)
        check_item(json_at(items, i), index);
    cr_log_info("%zu renderings", json_count(items));
    json_free(index);
}

static json *conversation(const json *root)
{
    struct buf b = {0};
    struct jw w = jw_begin(&b);
    struct error err;
    json *out = NULL;
    const json *pairs = json_get(root, "conversation");
    jw_obj(&w);
    jw_key(&w, "messages");
    jw_arr(&w);
    for (size_t i = 0; i < json_count(pairs); i++) {
        jw_obj(&w);
        jw_key(&w, "role");
        jw_json(&w, json_at(json_at(pairs, i), 0));
        jw_key(&w, "content");
        jw_json(&w, json_at(json_at(pairs, i), 1));
        jw_end_obj(&w);
    }
    jw_end_arr(&w);
    jw_key(&w, "add_generation_prompt");
    jw_bool(&w, json_as_bool(json_get(root, "add_generation_prompt"), true));
    jw_end_obj(&w);
    cr_assert_eq(json_read(b.data, b.len, &out, &err), ST_OK, "%s", err.text);
    buf_fini(&b);
    return out;
}

Test(template_goldens, fixed_conversation)
{
    if (!have(DATA "chat_goldens/fixed_conversation.json"))
        cr_skip_test("no chat goldens at %s", DATA);
    json *root = read_json(DATA "chat_goldens", "fixed_conversation.json"),
         *variables = conversation(root);
    const json *cases = json_get(root, "cases");
    cr_assert_gt(json_count(cases), 0);
    for (size_t i = 0; i < json_count(cases); i++) {
        const json *c = json_at(cases, i), *text = json_get(c, "template");
        const char *name = json_as_str(json_get(c, "name"), "?");
        struct template_args args = {.variables = variables,
                                     .bos_token = json_as_str(json_get(c, "bos_token"), ""),
                                     .eos_token = json_as_str(json_get(c, "eos_token"), "")};
        struct template_result r = {0};
        struct error err;
        cr_assert_eq(render(json_as_str(text, ""), json_str_len(text), args, &r, &err), ST_OK,
                     "%s: %s", name, err.text);
        cr_assert_str_eq(r.text.data, json_as_str(json_get(c, "expected_jinja"), ""), "%s", name);
        check_spans(&r, name);
        template_result_fini(&r);
    }
    json_free(variables);
    json_free(root);
}
