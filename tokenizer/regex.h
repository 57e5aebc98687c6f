/* Regular expressions of tokenizer files: written for Onigmo, run by PCRE2 (JIT where there is
 * one), which regex*.c confine. Classes whose meaning differs (\s, \w) are
 * spelled out; matching is bounded in steps and memory.
 *
 * Owner: regex_compile() gives an immutable object for any thread; each matching loop needs its own
 * struct regex_run.
 */
#ifndef TOKENIZER_REGEX_H
#define TOKENIZER_REGEX_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/status.h"

struct regex;

/* ST_INVALID: syntax, with the reason and place; ST_NO_MEMORY. */
enum status regex_compile(const char *pattern, size_t len, struct regex **out, struct error *err);
/* The same pattern as PCRE2 reads it, in place of *out's contents; regex_compile() does this.
 * Returns what is not supported, NULL when all is. */
const char *regex_translate(const char *pattern, size_t len, struct buf *out);
/* The pattern is a plain string. */
enum status regex_compile_literal(const char *s, size_t len, struct regex **out, struct error *err);
void regex_free(struct regex *r);

/* Matching state of one thread: zero-initialise, end with regex_run_fini(). */
struct regex_run {
    void *match_data, *match_context, *jit_stack;
};
void regex_run_fini(struct regex_run *run);

/* Walks all matches of one text (valid UTF-8), in order and without overlap; an empty match right
 * after another match is passed over.
 *
 *     struct regex_walk w = {.regex = r, .run = &run, .text = text, .len = len};
 *     while ((st = regex_next(&w, err)) == ST_OK)
 *         use(w.begin, w.end);
 */
struct regex_walk {
    const struct regex *regex;
    struct regex_run *run;
    const char *text;
    size_t len;
    size_t begin, end; /* the match */
    size_t pos;        /* where to look next */
    bool any;
    unsigned calls; /* for the time limit */
    int64_t begun_ns;
};
/* ST_NOT_FOUND at the end; ST_INVALID when the pattern needs more than the allowed steps on this
 * text; ST_NO_MEMORY. */
enum status regex_next(struct regex_walk *w, struct error *err);

#endif
