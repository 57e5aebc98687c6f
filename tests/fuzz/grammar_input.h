/* What the fuzzers of grammars share. Input: the grammar's text, then, after a NUL byte, bytes for
 * it to accept or refuse. Whatever both are: compiling ends within its bounds with a grammar or
 * with an error that has a text, and every state that was reached can go on or is complete. */
#ifndef TESTS_FUZZ_GRAMMAR_INPUT_H
#define TESTS_FUZZ_GRAMMAR_INPUT_H

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "tokenizer/grammar/grammar.h"

/* Some byte leads on from here, or nothing has to. */
static inline void check_goes_on(struct grammar_run *run, const struct grammar_state *at)
{
    for (int byte = 0; byte < 256; byte++) {
        struct grammar_state to = *at;
        char c = (char)byte;
        enum status st = grammar_accept_bytes(run, &to, &c, 1, NULL);
        if (st == ST_OK || st == ST_UNSUPPORTED)
            return;
    }
    if (!grammar_is_complete(run, at))
        abort();
}

static inline void fuzz_grammar(enum grammar_kind kind, const uint8_t *data, size_t size)
{
    const uint8_t *nul = size ? memchr(data, 0, size) : NULL;
    size_t len = nul ? (size_t)(nul - data) : size;
    struct grammar *g = NULL;
    struct grammar_run *run = NULL;
    struct error err = {0};
    if (grammar_compile(kind, (const char *)data, len, &g, &err) != ST_OK) {
        if (!err.text[0])
            abort();
        return;
    }
    if (grammar_run_create(g, NULL, &run, &err) == ST_OK) {
        struct grammar_state at = grammar_begin(run);
        check_goes_on(run, &at);
        for (size_t i = len + 1; i < size; i++) {
            char c = (char)data[i];
            if (grammar_accept_bytes(run, &at, &c, 1, &err) == ST_OK)
                check_goes_on(run, &at);
        }
    }
    grammar_run_free(run);
    grammar_free(g);
}

#endif
