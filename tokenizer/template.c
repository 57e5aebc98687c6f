/* The public face: parsing, rendering, and the output's provenance as spans. */
#include "tokenizer/template.h"

#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/utf8.h"
#include "tokenizer/template/parse.h"

enum { PARSE_MEMORY_MAX = 256 << 20, STEPS_DEFAULT = 2000000, OUTPUT_DEFAULT = 16 << 20 };

enum status template_parse(const char *text, size_t len, struct chat_template **out,
                           struct error *err)
{
    if (len > TMPL_SOURCE_MAX)
        return err_set(err, ST_INVALID, "chat template: %zu bytes, at most %d", len,
                       TMPL_SOURCE_MAX);
    if (!utf8_valid(text, len))
        return err_set(err, ST_INVALID, "chat template: not valid UTF-8");
    struct chat_template *t = calloc(1, sizeof *t);
    if (t == NULL)
        return err_set(err, ST_NO_MEMORY, "chat template: out of memory");
    struct trun *r = &t->memory;
    r->arena_max = PARSE_MEMORY_MAX;
    r->output_max = TMPL_SOURCE_MAX;
    r->steps_max = INT64_MAX;
    r->err = err;
    r->line = 1;
    if (setjmp(r->fail) != 0) {
        enum status st = r->status;
        template_free(t);
        return st;
    }
    struct tparser p = {.r = r, .t = t};
    size_t n;
    struct ttoken *tokens = tmpl_lex(r, text, len, &n);
    tmpl_parse_body(&p, tokens);
    r->err = NULL; /* the caller's; not ours to keep */
    *out = t;
    return ST_OK;
}

void template_free(struct chat_template *t)
{
    if (t == NULL)
        return;
    tmpl_free_all(&t->memory);
    free(t);
}

void template_result_fini(struct template_result *r)
{
    buf_fini(&r->text);
    free(r->spans);
    *r = (struct template_result){0};
}

/* Runs of equal trust; with spans == NULL only counts them. */
static size_t make_spans(const struct tbuf *b, struct text_span *spans)
{
    size_t n = 0;
    for (size_t i = 0, end; i < b->len; i = end) {
        bool trusted = b->mask != NULL ? b->mask[i] : b->trusted;
        const uint8_t *change = b->mask != NULL ? memchr(b->mask + i, !trusted, b->len - i) : NULL;
        end = change != NULL ? (size_t)(change - b->mask) : b->len;
        if (spans != NULL)
            spans[n] = (struct text_span){end - i, trusted};
        n++;
    }
    return n;
}

static enum status give_result(const struct tbuf *b, struct template_result *out, struct error *err)
{
    struct template_result res = {.text.max = b->len + 64};
    buf_append(&res.text, b->len > 0 ? b->p : "", b->len);
    res.n_spans = make_spans(b, NULL);
    res.spans = calloc(res.n_spans + 1, sizeof *res.spans);
    if (res.text.failed || res.spans == NULL) {
        template_result_fini(&res);
        return err_set(err, ST_NO_MEMORY, "chat template: out of memory");
    }
    make_spans(b, res.spans);
    *out = res;
    return ST_OK;
}

enum status template_render(const struct chat_template *t, const struct template_args *args,
                            struct template_result *out, struct error *err)
{
    struct trun run, *r = &run;
    struct tbuf text = {0};
    memset(r, 0, sizeof *r);
    r->t = t;
    r->err = err;
    r->line = 1;
    r->steps_max = args->max_steps > 0 ? args->max_steps : STEPS_DEFAULT;
    r->output_max = args->max_output_bytes > 0 ? (size_t)args->max_output_bytes : OUTPUT_DEFAULT;
    r->output_max = r->output_max > SIZE_MAX / 32 ? SIZE_MAX / 32 : r->output_max;
    r->arena_max = r->output_max * 8 + (16 << 20);
    r->now_unix_s = args->has_now ? args->now_unix_s : clock_unix_ns() / NS_PER_S;
    r->variables = args->variables;
    r->bos = args->bos_token;
    r->eos = args->eos_token;
    r->mutation = args->allow_mutation;
    r->out = &text;
    enum status st;
    if (setjmp(r->fail) == 0) {
        r->cache = tmpl_alloc(r, t->n_names * sizeof *r->cache);
        memset(r->cache, 0, t->n_names * sizeof *r->cache);
        r->scope = tmpl_scope(r, NULL);
        tmpl_exec(r, t->body, t->n_body);
        st = give_result(&text, out, err);
    } else {
        st = r->status;
    }
    tmpl_free_all(r);
    return st;
}
