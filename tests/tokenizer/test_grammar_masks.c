/* Masks over real vocabularies: equal to trying every token, always completable, the same after a
 * replay and with a run that has to forget. */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/json.h"
#include "base/rng.h"
#include "tokenizer/grammar/grammar.h"
#include "tokenizer/grammar/schema/schema.h"

static const struct sample {
    enum grammar_kind kind;
    const char *text;
} samples[] = {
    {GRAMMAR_JSON_OBJECT, ""},
    {GRAMMAR_JSON_SCHEMA,
     "{\"type\":\"object\",\"properties\":{\"name\":{\"type\":\"string\",\"maxLength\":12},\"n\":{"
     "\"type\":\"integer\",\"minimum\":-5,\"maximum\":1200},\"tags\":{\"type\":\"array\",\"items\":"
     "{"
     "\"enum\":[\"red\",\"green\",true,null,[1]]},\"minItems\":2,\"maxItems\":5},\"x\":{\"type\":["
     "\"number\",\"null\"]}},\"required\":[\"name\",\"tags\"],\"additionalProperties\":false}"},
    {GRAMMAR_JSON_SCHEMA,
     "{\"$defs\":{\"t\":{\"type\":\"object\",\"properties\":{\"v\":{\"type\":\"boolean\"},\"kids\":"
     "{"
     "\"type\":\"array\",\"maxItems\":2,\"items\":{\"$ref\":\"#/$defs/t\"}}},\"required\":[\"v\"],"
     "\"additionalProperties\":false}},\"$ref\":\"#/$defs/t\"}"},
    {GRAMMAR_JSON_SCHEMA,
     "{\"type\":\"object\",\"patternProperties\":{\"^s\":{\"type\":\"string\",\"minLength\":1,"
     "\"maxLength\":4},\"e$\":{\"maxLength\":3}},\"additionalProperties\":{\"type\":\"integer\","
     "\"multipleOf\":5},\"minProperties\":1,\"maxProperties\":3}"},
    {GRAMMAR_JSON_SCHEMA,
     "{\"anyOf\":[{\"type\":\"string\",\"pattern\":\"^[a-f]{2,6}$\"},{\"type\":\"string\","
     "\"format\":"
     "\"date-time\"},{\"type\":\"array\",\"items\":{\"type\":\"null\"},\"maxItems\":4}]}"},
};
#define N_SAMPLES (sizeof samples / sizeof *samples)

static const struct sample others[] = {
    {GRAMMAR_REGEX, "(?:[a-z]{1,9} ){3,30}\\.|\xe2\x82\xac{2,5}"},
    {GRAMMAR_GBNF,
     "root ::= \"a\" root | \"b\" root \"c\" | \"(\" root \")\" ws | \"\"\nws ::= \" \"*"},
    {GRAMMAR_GBNF, "root ::= \"a\"{3,70} (\"b\" \"c\"?){0,9} \"d\""},
    {GRAMMAR_GBNF, "root ::= s\ns ::= \"x\" s \"a\" | \"x\" s \"b\" | \"c\""},
    {GRAMMAR_CHOICE, "[\"red\",\"green\",\"gray\"]"},
};
#define N_OTHERS (sizeof others / sizeof *others)

struct rig {
    struct tokenizer *tokenizer;
    struct grammar_vocab *vocab;
    struct grammar *grammar;
    struct grammar_run *run;
};

static void open_rig(struct rig *r, const char *dir)
{
    struct error err = {0};
    cr_assert_eq(tokenizer_load(dir, &r->tokenizer, &err), ST_OK, "%s", err.text);
    int32_t eos = tokenizer_eos(r->tokenizer);
    struct grammar_vocab_args args = {.tokenizer = r->tokenizer,
                                      .size = (int32_t)tokenizer_vocab_size(r->tokenizer),
                                      .ends = &eos,
                                      .n_ends = 1};
    cr_assert_eq(grammar_vocab_create(&args, &r->vocab, &err), ST_OK, "%s", err.text);
}

static void begin(struct rig *r, const struct sample *s)
{
    struct error err = {0};
    cr_assert_eq(grammar_compile(s->kind, s->text, strlen(s->text), &r->grammar, &err), ST_OK,
                 "%s: %s", s->text, err.text);
    cr_assert_eq(grammar_run_create(r->grammar, r->vocab, &r->run, &err), ST_OK);
}

static void end(struct rig *r)
{
    grammar_run_free(r->run);
    grammar_free(r->grammar);
}

static void close_rig(struct rig *r)
{
    grammar_vocab_free(r->vocab);
    tokenizer_free(r->tokenizer);
}

static void compare_with_trying(struct rig *r, const struct grammar_state *at, const uint64_t *mask,
                                const char *what)
{
    for (int32_t id = 0; id < grammar_vocab_size(r->vocab); id++) {
        struct grammar_state to = *at;
        bool allowed = grammar_accept(r->run, &to, id, NULL) == ST_OK;
        cr_assert_eq(allowed, grammar_mask_has(mask, id), "%s: token %d is %s", what, id,
                     allowed ? "missing" : "too much");
    }
}

/* Prefers what ends: of three draws the token with the fewest bytes. */
static int32_t pick(const struct rig *r, const uint64_t *mask, uint64_t seed, uint64_t step)
{
    int32_t n = grammar_vocab_size(r->vocab), best = -1, best_len = 1 << 30;
    for (uint64_t k = 0; k < 3; k++) {
        int32_t begin = (int32_t)(rng_hash(seed, k, step, 3) % (uint64_t)n);
        for (int32_t i = 0; i < n; i++) {
            int32_t id = (begin + i) % n;
            const char *text = tokenizer_token(r->tokenizer, id);
            if (!grammar_mask_has(mask, id))
                continue;
            int32_t len = text ? (int32_t)strlen(text) : 0;
            if (len < best_len) {
                best = id;
                best_len = len;
            }
            break;
        }
    }
    return best;
}

struct walked {
    struct ids ids;
    struct buf text;
    bool complete;
};

static struct walked walk(struct rig *r, const char *what, uint64_t seed, int compare_every)
{
    struct walked w = {0};
    struct grammar_state at = grammar_begin(r->run);
    for (uint64_t i = 0; i < 400; i++) {
        const uint64_t *mask;
        struct error err = {0};
        grammar_run_tidy(r->run);
        if (grammar_is_stale(r->run, &at))
            cr_assert_eq(grammar_replay(r->run, w.ids.v, w.ids.n, &at, &err), ST_OK);
        w.complete = grammar_is_complete(r->run, &at);
        if (grammar_is_over(r->run, &at) || (w.complete && rng_hash(seed, 9, i, 1) % 100 < 20 + i))
            break;
        cr_assert_eq(grammar_mask(r->run, &at, &mask, &err), ST_OK, "%s: %s", what, err.text);
        if (compare_every && i % (uint64_t)compare_every == 0)
            compare_with_trying(r, &at, mask, what);
        int32_t id = pick(r, mask, seed, i);
        if (id < 0) {
            cr_assert(w.complete, "%s: nothing is allowed and it is not complete", what);
            break;
        }
        cr_assert_eq(grammar_accept(r->run, &at, id, &err), ST_OK);
        ids_push(&w.ids, id);
        tokenizer_token_bytes(r->tokenizer, id, &w.text);
    }
    return w;
}

static void forget(struct walked *w)
{
    ids_fini(&w->ids);
    buf_fini(&w->text);
}

static bool fulfils(const char *schema_text, const struct walked *w)
{
    json *schema = NULL, *value = NULL;
    struct error err = {0};
    struct builder b = {.err = &err};
    if (json_read(w->text.data, w->text.len, &value, &err) != ST_OK)
        return strstr(err.text, "duplicate") != NULL; /* names are not kept apart */
    cr_assert_eq(json_read(schema_text, strlen(schema_text), &schema, &err), ST_OK);
    struct schema s = {.b = &b, .root = schema, .where = ""};
    bool ok = schema_check(&s, schema, value, 0);
    json_free(schema);
    json_free(value);
    return ok;
}

Test(grammar_masks, equal_trying_every_token, .timeout = 300)
{
    struct rig r = {0};
    open_rig(&r, BATON_SOURCE_DIR "/models/tiny");
    for (size_t i = 0; i < N_SAMPLES + N_OTHERS; i++) {
        const struct sample *s = i < N_SAMPLES ? &samples[i] : &others[i - N_SAMPLES];
        begin(&r, s);
        for (uint64_t seed = 0; seed < 6; seed++) {
            struct walked w = walk(&r, s->text, seed, 1);
            forget(&w);
        }
        end(&r);
    }
    close_rig(&r);
}

Test(grammar_masks, walks_end_in_what_the_schema_allows, .timeout = 300)
{
    struct rig r = {0};
    open_rig(&r, BATON_SOURCE_DIR "/models/tiny");
    for (size_t i = 1; i < N_SAMPLES; i++) {
        int complete = 0;
        begin(&r, &samples[i]);
        for (uint64_t seed = 0; seed < 100; seed++) {
            struct walked w = walk(&r, samples[i].text, seed, 0);
            cr_expect(!w.complete || fulfils(samples[i].text, &w), "%s: %.*s", samples[i].text,
                      (int)w.text.len, w.text.data);
            complete += w.complete;
            forget(&w);
        }
        cr_expect(complete > 10, "%s: only %d ended", samples[i].text, complete);
        end(&r);
    }
    close_rig(&r);
}

Test(grammar_masks, forgetting_changes_nothing, .timeout = 300)
{
    struct rig r = {0};
    uint64_t forgotten = 0;
    open_rig(&r, BATON_SOURCE_DIR "/models/tiny");
    for (size_t i = 0; i < N_SAMPLES + N_OTHERS; i++) {
        const struct sample *s = i < N_SAMPLES ? &samples[i] : &others[i - N_SAMPLES];
        begin(&r, s);
        struct walked a = walk(&r, s->text, 77, 0);
        grammar_run_bound(r.run, 4000, 2000);
        struct walked b = walk(&r, s->text, 77, 0);
        struct grammar_run_stats stats;
        grammar_run_stats(r.run, &stats);
        cr_expect_eq(a.ids.n, b.ids.n, "%s", s->text);
        cr_expect(a.ids.n == 0 || memcmp(a.ids.v, b.ids.v, a.ids.n * sizeof *a.ids.v) == 0);
        forgotten += stats.forgotten;
        forget(&a);
        forget(&b);
        end(&r);
    }
    cr_expect(forgotten > 10);
    close_rig(&r);
}

/* States of many counts share their masks as long as no token can tell them apart. */
Test(grammar_masks, counts_share_masks)
{
    struct rig r = {0};
    const struct sample s = {GRAMMAR_JSON_SCHEMA, "{\"type\":\"string\",\"maxLength\":5000}"};
    struct grammar_run_stats stats;
    open_rig(&r, BATON_SOURCE_DIR "/models/tiny");
    begin(&r, &s);
    struct grammar_state at = grammar_begin(r.run);
    cr_assert_eq(grammar_accept_bytes(r.run, &at, "\"", 1, NULL), ST_OK);
    for (int i = 0; i < 4000; i++) {
        const uint64_t *mask;
        cr_assert_eq(grammar_mask(r.run, &at, &mask, NULL), ST_OK);
        cr_assert_eq(grammar_accept_bytes(r.run, &at, "x", 1, NULL), ST_OK);
    }
    grammar_run_stats(r.run, &stats);
    cr_expect(stats.masks_made < 5, "%llu", (unsigned long long)stats.masks_made);
    end(&r);
    close_rig(&r);
}

/* Every reading of a text is followed at once: where there are too many, the request ends and the
 * step does not take seconds. */
Test(grammar_masks, ambiguity_is_bounded, .timeout = 20)
{
    static const char *const texts[] = {
        "root ::= a\na ::= \"\" | [^x] a b? | [a-m] a a\nb ::= [a-z] b? | [^q] a",
        "root ::= s{1000}\ns ::= [^x] | [^y] [^z] | [^w] s s | t\nt ::= [a-z] s [a-z] t?"};
    struct rig r = {0};
    open_rig(&r, BATON_SOURCE_DIR "/models/tiny");
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        const struct sample s = {GRAMMAR_GBNF, texts[i]};
        struct error err = {0};
        enum status st = ST_OK;
        begin(&r, &s);
        struct grammar_state at = grammar_begin(r.run);
        for (int k = 0; k < 100 && st == ST_OK; k++) {
            const uint64_t *mask;
            st = grammar_mask(r.run, &at, &mask, &err);
            if (st == ST_OK)
                st = grammar_accept_bytes(r.run, &at, "abcdefgh", 8, &err);
        }
        cr_expect_eq(st, ST_UNSUPPORTED, "%s: %s", texts[i], err.text);
        cr_expect(strstr(err.text, "too ambiguous"), "%s", err.text);
        cr_expect_gt(grammar_run_bytes(r.run), 1u << 20);
        grammar_run_forget(r.run);
        cr_expect_lt(grammar_run_bytes(r.run), 1u << 16);
        end(&r);
    }
    close_rig(&r);
}

/* A special token is no text, and stands where a structure names it. */
Test(grammar_masks, special_tokens)
{
    struct rig r = {0};
    const struct sample s = {
        GRAMMAR_STRUCTURE, "{\"seq\":[{\"special\":\"<|user|>\"},{\"regex\":\"[\\\\s\\\\S]*\"}]}"};
    const uint64_t *mask;
    open_rig(&r, BATON_SOURCE_DIR "/models/tiny");
    begin(&r, &s);
    int32_t user = tokenizer_find(r.tokenizer, "<|user|>");
    struct grammar_state at = grammar_begin(r.run);
    cr_assert_eq(grammar_mask(r.run, &at, &mask, NULL), ST_OK);
    for (int32_t id = 0; id < grammar_vocab_size(r.vocab); id++)
        cr_expect_eq(grammar_mask_has(mask, id), id == user);
    cr_assert_eq(grammar_accept(r.run, &at, user, NULL), ST_OK);
    cr_assert_eq(grammar_mask(r.run, &at, &mask, NULL), ST_OK);
    for (int32_t id = 0; id < grammar_vocab_size(r.vocab); id++)
        if (tokenizer_is_special(r.tokenizer, id))
            cr_expect(!grammar_mask_has(mask, id), "%d", id);
    end(&r);
    close_rig(&r);
}

/* ---- behind free text ---- */

#define UNTIL "{\"until\":[\"</think>\"],\"never\":[\"<bad>\"]}"

static void begin_behind(struct rig *r, const char *lead, const struct sample *s)
{
    struct buf text = {0};
    struct error err = {0};
    buf_puts(&text, lead);
    buf_puts(&text, s->text);
    const struct grammar_source source = {
        .kind = s->kind, .text = text.data, .len = text.len, .lead = strlen(lead)};
    cr_assert_eq(grammar_compile_source(r->vocab, &source, &r->grammar, &err), ST_OK, "%s: %s",
                 s->text, err.text);
    cr_assert_eq(grammar_run_create(r->grammar, r->vocab, &r->run, &err), ST_OK);
    buf_fini(&text);
}

struct oracle {
    struct rig *r;
    struct grammar *plain; /* what stands behind the text */
    struct grammar_run *run;
    struct buf said;
};

/* Whether `said` and the token fit: by looking for the marker in them. */
static bool may_follow(struct oracle *o, int32_t id)
{
    size_t before = o->said.len;
    bool special = tokenizer_is_special(o->r->tokenizer, id), fits = !special;
    if (!special)
        tokenizer_token_bytes(o->r->tokenizer, id, &o->said);
    fits &= o->said.len > before && !memchr(o->said.data + before, 0xff, o->said.len - before);
    const char *end = memmem(o->said.data, o->said.len, "</think>", 8);
    const char *bad = memmem(o->said.data, o->said.len, "<bad>", 5);
    if (fits && bad && (!end || bad < end))
        fits = false;
    if (fits && end) {
        struct grammar_state at = grammar_begin(o->run);
        size_t at_byte = (size_t)(end - o->said.data) + 8;
        fits = grammar_accept_bytes(o->run, &at, end + 8, o->said.len - at_byte, NULL) == ST_OK;
    }
    o->said.len = before;
    return fits;
}

/* Says `text` token by token, comparing every mask on the way with the oracle. */
static void say(struct oracle *o, const char *text, struct ids *ids)
{
    struct rig *r = o->r;
    struct grammar_state at = grammar_begin(r->run);
    const uint64_t *mask;
    cr_assert_eq(tokenizer_encode(r->tokenizer, text, strlen(text), 0, ids, NULL), ST_OK);
    for (size_t i = 0; i <= ids->n; i++) {
        cr_assert_eq(grammar_mask(r->run, &at, &mask, NULL), ST_OK);
        for (int32_t id = 0; id < grammar_vocab_size(r->vocab); id++)
            cr_assert_eq(grammar_mask_has(mask, id), may_follow(o, id), "%.*s: token %d",
                         (int)o->said.len, o->said.data, id);
        if (i < ids->n) {
            cr_assert(!grammar_is_complete(r->run, &at));
            cr_assert_eq(grammar_accept(r->run, &at, ids->v[i], NULL), ST_OK);
            tokenizer_token_bytes(r->tokenizer, ids->v[i], &o->said);
        }
    }
    struct grammar_state again;
    cr_assert_eq(grammar_replay(r->run, ids->v, ids->n, &again, NULL), ST_OK);
    cr_expect_eq(again.at, at.at);
}

Test(grammar_masks, behind_free_text, .timeout = 300)
{
    static const char *const texts[] = {
        "Hm, a < b </b> <think> <bad </thin</think",
        "</think>",
        "</thi\xc3\x9f</think>{",
        "\xe2\x82\xac {\"no\": \"JSON</th\"} <</</think>{\"",
    };
    struct rig r = {0};
    open_rig(&r, BATON_SOURCE_DIR "/models/tiny");
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        struct oracle o = {.r = &r};
        struct ids ids = {0};
        begin_behind(&r, UNTIL, &samples[1]);
        cr_assert_eq(grammar_compile(samples[1].kind, samples[1].text, strlen(samples[1].text),
                                     &o.plain, NULL),
                     ST_OK);
        cr_assert_eq(grammar_run_create(o.plain, NULL, &o.run, NULL), ST_OK);
        buf_reserve(&o.said, 1);
        say(&o, texts[i], &ids);
        struct grammar_run_stats stats;
        grammar_run_stats(r.run, &stats);
        cr_expect(stats.masks_made < 20, "%llu", (unsigned long long)stats.masks_made);
        ids_fini(&ids);
        buf_fini(&o.said);
        grammar_run_free(o.run);
        grammar_free(o.plain);
        end(&r);
    }
    close_rig(&r);
}

/* Markers are the text or the special token of that name; no other special token is free text. */
Test(grammar_masks, special_markers)
{
    struct rig r = {0};
    const uint64_t *mask;
    const struct sample s = {GRAMMAR_CHOICE, "[\"yes\",\"no\"]"};
    open_rig(&r, BATON_SOURCE_DIR "/models/tiny");
    begin_behind(&r,
                 "{\"any\":[{\"literal\":\"\"},{\"seq\":[{\"marker\":\"<|system|>\"},"
                 "{\"until\":[\"<|user|>\"]}]}]}",
                 &s);
    int32_t user = tokenizer_find(r.tokenizer, "<|user|>"),
            system = tokenizer_find(r.tokenizer, "<|system|>");
    cr_assert(user >= 0 && system >= 0);
    struct grammar_state at = grammar_begin(r.run), other;
    cr_assert_eq(grammar_accept_bytes(r.run, &at, "yes", 3, NULL), ST_OK); /* at once */
    cr_expect(grammar_is_over(r.run, &at));
    at = grammar_begin(r.run);
    cr_assert_eq(grammar_accept_bytes(r.run, &at, "<|system|>yes<|user|>no", 23, NULL), ST_OK);
    cr_expect(grammar_is_over(r.run, &at));
    at = grammar_begin(r.run);
    cr_assert_eq(grammar_mask(r.run, &at, &mask, NULL), ST_OK);
    cr_expect(grammar_mask_has(mask, system) && !grammar_mask_has(mask, user));
    cr_assert_eq(grammar_accept(r.run, &at, system, NULL), ST_OK);
    cr_assert_eq(grammar_accept_bytes(r.run, &at, "<|use", 5, NULL), ST_OK);
    cr_assert_eq(grammar_mask(r.run, &at, &mask, NULL), ST_OK);
    for (int32_t id = 0; id < grammar_vocab_size(r.vocab); id++)
        if (tokenizer_is_special(r.tokenizer, id))
            cr_expect_eq(grammar_mask_has(mask, id), id == user, "%d", id);
    other = at;
    cr_assert_eq(grammar_accept(r.run, &at, user, NULL), ST_OK);
    cr_assert_eq(grammar_accept_bytes(r.run, &at, "no", 2, NULL), ST_OK);
    cr_expect(grammar_is_over(r.run, &at));
    cr_assert_eq(grammar_accept_bytes(r.run, &other, "r|>no", 5, NULL), ST_OK);
    cr_expect(grammar_is_over(r.run, &other));
    end(&r);
    close_rig(&r);
}

Test(grammar_masks, large_vocabularies, .timeout = 300)
{
    static const char *const dirs[] = {"qwen2", "tinyllama"};
    for (size_t d = 0; d < 2; d++) {
        char path[512];
        struct rig r = {0};
        snprintf(path, sizeof path, BATON_SOURCE_DIR "/../shared/data/tokenizers/%s", dirs[d]);
        if (access(path, R_OK))
            cr_skip_test("%s is absent", path);
        open_rig(&r, path);
        for (size_t i = 0; i < N_SAMPLES; i++) {
            begin(&r, &samples[i]);
            struct walked w = walk(&r, samples[i].text, 5, 23);
            cr_expect(i == 0 || !w.complete || fulfils(samples[i].text, &w));
            forget(&w);
            end(&r);
        }
        close_rig(&r);
    }
}
