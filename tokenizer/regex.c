#define PCRE2_CODE_UNIT_WIDTH 8
#include "tokenizer/regex.h"

#include <pcre2.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/buf.h"
#include "base/clock.h"
#include "tokenizer/unicode.h"

#define PATTERN_MAX 65536
#define MATCH_STEPS_MAX 20000000
#define MATCH_HEAP_KIB (64 * 1024)
#define WINDOW 4096 /* bytes */
#define JIT_STACK_MAX (8 << 20)

struct regex {
    pcre2_code *code;
    bool jit;
    char *literal;
    size_t literal_len;
};

enum status regex_compile(const char *pattern, size_t len, struct regex **out, struct error *err)
{
    if (len > PATTERN_MAX)
        return err_set(err, ST_INVALID, "pattern of %zu bytes, at most %d", len, PATTERN_MAX);
    struct buf spelled = {.max = 64 * PATTERN_MAX};
    const char *unsupported = regex_translate(pattern, len, &spelled);
    enum status st = ST_OK;
    struct regex *r = NULL;
    pcre2_compile_context *context = NULL;
    if (unsupported) {
        st = err_set(err, ST_UNSUPPORTED, "pattern with %s", unsupported);
        goto done;
    }
    r = calloc(1, sizeof(*r));
    context = pcre2_compile_context_create(NULL);
    if (!r || !context || spelled.failed) {
        st = err_set(err, ST_NO_MEMORY, "pattern: no memory");
        goto done;
    }
    pcre2_set_newline(context, PCRE2_NEWLINE_LF);
    pcre2_set_parens_nest_limit(context, 100);
    int code = 0;
    PCRE2_SIZE at = 0;
    const char *text = spelled.data ? spelled.data : "";
    r->code = pcre2_compile((PCRE2_SPTR)text, spelled.len,
                            PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE | PCRE2_NEVER_BACKSLASH_C |
                                PCRE2_USE_OFFSET_LIMIT,
                            &code, &at, context);
    if (!r->code) {
        char reason[128] = "";
        pcre2_get_error_message(code, (PCRE2_UCHAR *)reason, sizeof(reason));
        st = err_set(err, ST_INVALID, "pattern: %s near \"%.40s\"", reason,
                     text + (at < spelled.len ? at : spelled.len));
        goto done;
    }
    r->jit = pcre2_jit_compile(r->code, PCRE2_JIT_COMPLETE) == 0;
    *out = r;
    r = NULL;
done:
    pcre2_compile_context_free(context);
    regex_free(r);
    buf_fini(&spelled);
    return st;
}

enum status regex_compile_literal(const char *s, size_t len, struct regex **out, struct error *err)
{
    struct regex *r = calloc(1, sizeof(*r));
    char *copy = malloc(len + 1);
    if (!r || !copy) {
        free(r);
        free(copy);
        return err_set(err, ST_NO_MEMORY, "pattern: no memory");
    }
    memcpy(copy, s, len);
    copy[len] = 0;
    r->literal = copy;
    r->literal_len = len;
    *out = r;
    return ST_OK;
}

void regex_free(struct regex *r)
{
    if (!r)
        return;
    pcre2_code_free(r->code);
    free(r->literal);
    free(r);
}

void regex_run_fini(struct regex_run *run)
{
    pcre2_match_data_free(run->match_data);
    pcre2_match_context_free(run->match_context);
    pcre2_jit_stack_free(run->jit_stack);
    *run = (struct regex_run){0};
}

static bool run_prepare(struct regex_run *run)
{
    if (run->match_data)
        return true;
    pcre2_match_data *data = pcre2_match_data_create(1, NULL);
    pcre2_match_context *context = pcre2_match_context_create(NULL);
    if (!data || !context) {
        pcre2_match_data_free(data);
        pcre2_match_context_free(context);
        return false;
    }
    pcre2_set_match_limit(context, MATCH_STEPS_MAX);
    pcre2_set_heap_limit(context, MATCH_HEAP_KIB);
    run->match_data = data;
    run->match_context = context;
    return true;
}

/* Processor time that a text of `len` bytes may cost: some fifty times what the published patterns
 * take. */
static int64_t allowed_ns(size_t len)
{
    return NS_PER_S + (int64_t)len * NS_PER_US;
}

static int64_t cpu_now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (int64_t)t.tv_sec * NS_PER_S + t.tv_nsec;
}

/* The step limit bounds one attempt at one place; this bounds their sum. */
static bool over_budget(struct regex_walk *w)
{
    if (w->calls++ % 64)
        return false;
    if (w->calls == 1)
        w->begun_ns = cpu_now_ns();
    return cpu_now_ns() - w->begun_ns > allowed_ns(w->len);
}

static int match_hard(const struct regex_walk *w)
{
    struct regex_run *run = w->run;
    /* The machine stack was too small for the JIT's backtracking: a larger one, then the
     * interpreter. */
    if (!run->jit_stack)
        run->jit_stack = pcre2_jit_stack_create(64 * 1024, JIT_STACK_MAX, NULL);
    if (run->jit_stack) {
        pcre2_jit_stack_assign(run->match_context, NULL, run->jit_stack);
        int rc = pcre2_jit_match(w->regex->code, (PCRE2_SPTR)w->text, w->len, w->pos, 0,
                                 run->match_data, run->match_context);
        if (rc != PCRE2_ERROR_JIT_STACKLIMIT)
            return rc;
    }
    return pcre2_match(w->regex->code, (PCRE2_SPTR)w->text, w->len, w->pos,
                       PCRE2_NO_UTF_CHECK | PCRE2_NO_JIT, run->match_data, run->match_context);
}

static int match_once(const struct regex_walk *w)
{
    const struct regex *r = w->regex;
    struct regex_run *run = w->run;
    int rc;
    if (r->jit)
        rc = pcre2_jit_match(r->code, (PCRE2_SPTR)w->text, w->len, w->pos, 0, run->match_data,
                             run->match_context);
    else
        rc = pcre2_match(r->code, (PCRE2_SPTR)w->text, w->len, w->pos, PCRE2_NO_UTF_CHECK,
                         run->match_data, run->match_context);
    return rc == PCRE2_ERROR_JIT_STACKLIMIT ? match_hard(w) : rc;
}

static enum status find_literal(struct regex_walk *w)
{
    const struct regex *r = w->regex;
    const char *at = r->literal_len
                         ? text_find(w->text + w->pos, w->len - w->pos, r->literal, r->literal_len)
                         : NULL;
    if (!at)
        return ST_NOT_FOUND;
    w->begin = (size_t)(at - w->text);
    w->end = w->begin + r->literal_len;
    return ST_OK;
}

/* First match at or after w->pos. Looks in windows of starting places, so that the time can be
 * checked. */
static enum status find(struct regex_walk *w, struct error *err)
{
    if (w->regex->literal)
        return find_literal(w);
    if (!run_prepare(w->run))
        return err_set(err, ST_NO_MEMORY, "pattern: no memory");
    int rc;
    for (;;) {
        size_t last = w->len - w->pos > WINDOW ? w->pos + WINDOW : w->len;
        if (over_budget(w))
            return err_set(err, ST_INVALID, "tokenizer pattern: too slow on this text");
        pcre2_set_offset_limit(w->run->match_context, last);
        rc = match_once(w);
        if (rc != PCRE2_ERROR_NOMATCH || last == w->len)
            break;
        w->pos = last;
        while (((unsigned char)w->text[w->pos] & 0xc0) == 0x80)
            w->pos++; /* a character that begins before `last` has been tried */
    }
    if (rc == PCRE2_ERROR_NOMATCH)
        return ST_NOT_FOUND;
    if (rc < 0) {
        char reason[128] = "";
        pcre2_get_error_message(rc, (PCRE2_UCHAR *)reason, sizeof(reason));
        return err_set(err, rc == PCRE2_ERROR_NOMEMORY ? ST_NO_MEMORY : ST_INVALID,
                       "tokenizer pattern: %s", reason);
    }
    const PCRE2_SIZE *v = pcre2_get_ovector_pointer(w->run->match_data);
    w->begin = v[0];
    w->end = v[1];
    /* \K can turn a match around, and then it is no match for us */
    if (w->begin < w->pos || w->end < w->begin)
        return ST_NOT_FOUND;
    return ST_OK;
}

enum status regex_next(struct regex_walk *w, struct error *err)
{
    while (w->pos <= w->len) {
        size_t last_end = w->end;
        enum status st = find(w, err);
        if (st)
            return st;
        w->pos = w->end;
        if (w->begin != w->end) {
            w->any = true;
            return ST_OK;
        }
        w->pos += w->end < w->len ? text_char_len((unsigned char)w->text[w->end]) : 1;
        if (w->any && w->end == last_end)
            continue;
        w->any = true;
        return ST_OK;
    }
    return ST_NOT_FOUND;
}
