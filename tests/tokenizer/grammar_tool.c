/* For grammar_report.py: a JSON object per input line, an answer per line.
 *
 *     grammar_tool [TOKENIZER_DIR]
 *     {"kind": "json_schema", "text": "...", "strings": [...], "walks": 3, "seed": 1, "max": 400}
 *     {"status": "ok", "error": "", "us": 120, "accepts": [...], "walks": [...]}
 *
 * With "brute" masks of the walks are compared with trying every token: "compared", "wrong_masks".
 * "walks": random walks under the mask; one that did not end within "max" tokens is null. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/json.h"
#include "base/rng.h"
#include "tokenizer/grammar/grammar.h"

static struct tokenizer *tokenizer;
static struct grammar_vocab *vocab;

static enum grammar_kind kind_of(const char *name)
{
    for (int k = 1; k < GRAMMAR_KINDS; k++)
        if (strcmp(grammar_kind_name((enum grammar_kind)k), name) == 0)
            return (enum grammar_kind)k;
    return GRAMMAR_NONE;
}

static bool accepts(struct grammar_run *run, const json *s)
{
    struct grammar_state at = grammar_begin(run);
    return grammar_accept_bytes(run, &at, json_as_str(s, ""), json_str_len(s), NULL) == ST_OK &&
           grammar_is_complete(run, &at);
}

/* Among the allowed tokens; the end counts as one of them and grows likelier. */
static int32_t pick(const uint64_t *mask, uint64_t draw)
{
    int32_t n = grammar_vocab_size(vocab), count = 0;
    for (int32_t id = 0; id < n; id++)
        count += grammar_mask_has(mask, id);
    if (count == 0)
        return -1;
    int32_t want = (int32_t)(draw % (uint64_t)count);
    for (int32_t id = 0; id < n; id++)
        if (grammar_mask_has(mask, id) && want-- == 0)
            return id;
    return -1;
}

/* Tokens for which the mask says something else than accepting them does. */
static int64_t mismatches(struct grammar_run *run, const struct grammar_state *at,
                          const uint64_t *mask)
{
    int64_t n = 0;
    for (int32_t id = 0; id < grammar_vocab_size(vocab); id++) {
        struct grammar_state to = *at;
        n += (grammar_accept(run, &to, id, NULL) == ST_OK) != grammar_mask_has(mask, id);
    }
    return n;
}

static int64_t wrong_masks, compared;

static void walk(struct grammar_run *run, struct jw *w, uint64_t seed, int64_t max, bool brute)
{
    struct grammar_state at = grammar_begin(run);
    struct buf text = {0};
    const uint64_t *mask;
    struct error err = {0};
    bool done = false;
    for (int64_t i = 0; i < max && !done; i++) {
        uint64_t draw = rng_hash(seed, 0, (uint64_t)i, 7);
        bool complete = grammar_is_complete(run, &at);
        if (complete && draw % 100 < 30 + (uint64_t)i / 4) {
            done = true;
            break;
        }
        if (grammar_mask(run, &at, &mask, &err) != ST_OK)
            break;
        if (brute && draw % 7 == 0) {
            wrong_masks += mismatches(run, &at, mask) > 0;
            compared++;
        }
        int32_t id = pick(mask, rng_hash(seed, 1, (uint64_t)i, 7));
        if (id < 0) {
            done = complete;
            break;
        }
        tokenizer_token_bytes(tokenizer, id, &text);
        if (grammar_accept(run, &at, id, &err) != ST_OK)
            break;
    }
    if (err.text[0])
        jw_str(w, err.text);
    else if (done)
        jw_strn(w, text.data ? text.data : "", text.len);
    else
        jw_null(w);
    buf_fini(&text);
}

static void answer(const json *q, struct buf *out)
{
    struct jw w = jw_begin(out);
    struct error err = {0};
    struct grammar *g = NULL;
    struct grammar_run *run = NULL;
    const json *text = json_get(q, "text"), *strings = json_get(q, "strings");
    int64_t begun = clock_now_ns();
    enum status st = grammar_compile(kind_of(json_as_str(json_get(q, "kind"), "")),
                                     json_as_str(text, ""), json_str_len(text), &g, &err);
    int64_t took = clock_now_ns() - begun;
    if (st == ST_OK)
        st = grammar_run_create(g, vocab, &run, &err);
    jw_obj(&w);
    jw_key(&w, "status");
    jw_str(&w, status_name(st));
    jw_key(&w, "error");
    jw_str(&w, err.text);
    jw_key(&w, "us");
    jw_int(&w, took / 1000);
    jw_key(&w, "bytes");
    jw_uint(&w, g ? grammar_bytes(g) : 0);
    jw_key(&w, "accepts");
    jw_arr(&w);
    for (size_t i = 0; run && i < json_count(strings); i++)
        jw_bool(&w, accepts(run, json_at(strings, i)));
    jw_end_arr(&w);
    jw_key(&w, "walks");
    jw_arr(&w);
    for (int64_t i = 0; run && vocab && i < json_as_int(json_get(q, "walks"), 0); i++)
        walk(run, &w, (uint64_t)(json_as_int(json_get(q, "seed"), 0) + i),
             json_as_int(json_get(q, "max"), 500), json_as_bool(json_get(q, "brute"), false));
    jw_end_arr(&w);
    jw_key(&w, "compared");
    jw_int(&w, compared);
    jw_key(&w, "wrong_masks");
    jw_int(&w, wrong_masks);
    compared = wrong_masks = 0;
    jw_end_obj(&w);
    grammar_run_free(run);
    grammar_free(g);
}

int main(int argc, char **argv)
{
    struct error err = {0};
    if (argc > 1) {
        enum status st = tokenizer_load(argv[1], &tokenizer, &err);
        if (st == ST_OK) {
            struct grammar_vocab_args args = {.tokenizer = tokenizer,
                                              .size = (int32_t)tokenizer_vocab_size(tokenizer)};
            int32_t eos = tokenizer_eos(tokenizer);
            args.ends = &eos;
            args.n_ends = eos >= 0;
            st = grammar_vocab_create(&args, &vocab, &err);
        }
        if (st != ST_OK) {
            fprintf(stderr, "%s\n", err.text);
            return 1;
        }
    }
    char *line = NULL;
    size_t cap = 0;
    ssize_t n;
    while ((n = getline(&line, &cap, stdin)) > 0) {
        json *q = NULL;
        struct buf out = {0};
        if (json_read(line, (size_t)n, &q, &err) != ST_OK)
            printf("{\"status\":\"not json\",\"error\":\"%s\"}\n", err.text);
        else
            answer(q, &out);
        buf_putc(&out, '\n');
        fwrite(out.data, 1, out.len, stdout);
        fflush(stdout);
        json_free(q);
        buf_fini(&out);
    }
    free(line);
    grammar_vocab_free(vocab);
    if (tokenizer)
        tokenizer_free(tokenizer);
    return 0;
}
