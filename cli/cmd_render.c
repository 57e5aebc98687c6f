/* `baton render [MODEL]`: messages and variables on stdin to the text that the model would see. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/buf.h"
#include "base/flags.h"
#include "base/json.h"
#include "cli/commands.h"
#include "cli/local.h"
#include "tokenizer/template.h"
#include "tokenizer/tokenizer.h"

struct options {
    const char *dir, *file, *bos, *eos, *now;
};

/* Unix seconds, or "2024-07-26", "2024-07-26 10:30:00", with T for the space too; UTC. */
static enum status parse_now(const char *text, int64_t *out, struct error *err)
{
    static const char *const formats[] = {"%Y-%m-%d", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%dT%H:%M:%SZ",
                                          "%Y-%m-%d %H:%M:%S", "%Y-%m-%dT%H:%M"};
    char *end;
    errno = 0;
    long long seconds = strtoll(text, &end, 10);
    if (end != text && *end == '\0' && errno == 0) {
        *out = seconds;
        return ST_OK;
    }
    for (size_t i = 0; i < sizeof formats / sizeof formats[0]; i++) {
        struct tm tm = {0};
        const char *rest = strptime(text, formats[i], &tm);
        if (rest != NULL && *rest == '\0') {
            *out = (int64_t)timegm(&tm);
            return ST_OK;
        }
    }
    return err_set(err, ST_INVALID, "--now: expected Unix seconds or YYYY-MM-DD[THH:MM:SS], got %s",
                   text);
}

/* A chat with tools has a template of its own in some models. */
static enum status read_template(const struct options *o, const struct tokenizer *t,
                                 const json *variables, struct chat_template **out,
                                 struct error *err)
{
    if (o->file == NULL) {
        const char *text = t ? tokenizer_chat_template(t) : NULL;
        if (t && tokenizer_tool_template(t) && json_count(json_get(variables, "tools")))
            text = tokenizer_tool_template(t);
        if (text == NULL)
            return err_set(err, ST_NOT_FOUND, "%s: the model has no chat template",
                           o->dir ? o->dir : "no MODEL");
        return template_parse(text, strlen(text), out, err);
    }
    FILE *f = fopen(o->file, "rb");
    if (f == NULL)
        return err_set(err, ST_NOT_FOUND, "%s: %s", o->file, strerror(errno));
    struct buf text = {0};
    enum status st = local_read_all(f, o->file, &text, err);
    fclose(f);
    if (st == ST_OK)
        st = template_parse(text.data ? text.data : "", text.len, out, err);
    buf_fini(&text);
    return st;
}

static const char *token_text(const struct tokenizer *t, int32_t id)
{
    const char *text = t && id >= 0 ? tokenizer_token(t, id) : NULL;
    return text ? text : "";
}

static enum status read_variables(json **out, struct error *err)
{
    struct buf text = {0};
    enum status st = local_read_all(stdin, "stdin", &text, err);
    if (st == ST_OK) {
        st = json_read(text.data ? text.data : "", text.len, out, err);
        if (st != ST_OK)
            err_prefix(err, "stdin");
    }
    buf_fini(&text);
    if (st == ST_OK && json_kind_of(*out) != JSON_OBJ)
        st = err_set(err, ST_INVALID, "stdin: expected an object with \"messages\", got %s",
                     json_kind_name(json_kind_of(*out)));
    return st;
}

static enum status render(const struct options *o, struct error *err)
{
    struct tokenizer *t = NULL;
    struct chat_template *template = NULL;
    struct template_result result = {0};
    json *variables = NULL;
    struct template_args args = {.has_now = o->now != NULL};
    enum status st = ST_OK;
    if (o->now)
        st = parse_now(o->now, &args.now_unix_s, err);
    if (st == ST_OK && o->dir)
        st = tokenizer_load(o->dir, &t, err);
    if (st == ST_OK)
        st = read_variables(&variables, err);
    if (st == ST_OK)
        st = read_template(o, t, variables, &template, err);
    if (st == ST_OK) {
        args.variables = variables;
        args.bos_token = o->bos ? o->bos : token_text(t, t ? tokenizer_bos(t) : -1);
        args.eos_token = o->eos ? o->eos : token_text(t, t ? tokenizer_eos(t) : -1);
        st = template_render(template, &args, &result, err);
    }
    if (st == ST_OK && result.text.len > 0)
        fwrite(result.text.data, 1, result.text.len, stdout);
    if (st == ST_OK && fflush(stdout) != 0)
        st = err_set(err, ST_IO, "stdout: %s", strerror(errno));
    template_result_fini(&result);
    json_free(variables);
    template_free(template);
    tokenizer_free(t);
    return st;
}

int cmd_render(int argc, char **argv)
{
    struct options o = {0};
    struct flag table[] = {
        {.name = "template",
         .kind = FLAG_STR,
         .target = &o.file,
         .value = "FILE",
         .help = "this template instead of the model's; MODEL may be left out"},
        {.name = "bos",
         .kind = FLAG_STR,
         .target = &o.bos,
         .value = "TEXT",
         .help = "bos_token, instead of the model's"},
        {.name = "eos",
         .kind = FLAG_STR,
         .target = &o.eos,
         .value = "TEXT",
         .help = "eos_token, instead of the model's"},
        {.name = "now",
         .kind = FLAG_STR,
         .target = &o.now,
         .value = "TIME",
         .help = "what strftime_now() tells: Unix seconds or YYYY-MM-DD[THH:MM:SS], UTC"},
    };
    struct flags f = {.program = "baton render",
                      .usage = "[MODEL] [options] < JSON",
                      .about = "Prints the prompt text of {\"messages\": [...], ...} on stdin; "
                               "every further key is a template variable.",
                      .table = table,
                      .n = sizeof table / sizeof table[0]};
    size_t n = 0;
    int rc = flags_parse(&f, argc, argv, &o.dir, 1, &n);
    if (rc != 0)
        return rc == 1 ? 0 : rc;
    if (n == 0 && o.file == NULL) {
        fprintf(stderr,
                "baton render: expected MODEL or --template FILE (see baton render --help)\n");
        return 2;
    }
    struct error err = {0};
    if (render(&o, &err) == ST_OK)
        return 0;
    fprintf(stderr, "baton render: %s\n", err.text);
    return 1;
}
