#include "engine/grammars.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "base/list.h"

_Static_assert((int)MSG_GRAMMAR_KINDS == (int)GRAMMAR_KINDS &&
                   (int)MSG_GRAMMAR_STRUCTURE == (int)GRAMMAR_STRUCTURE &&
                   (int)MSG_GRAMMAR_GBNF == (int)GRAMMAR_GBNF,
               "the wire's kinds are the compiler's");
_Static_assert(MSG_GRAMMAR_BYTES_MAX == GRAMMAR_TEXT_MAX &&
                   MSG_GRAMMAR_LEAD_MAX == GRAMMAR_LEAD_MAX,
               "what fits the wire can be compiled");

struct grammar_use {
    struct list link; /* of `used` or `idle`, the latter oldest first */
    uint64_t hash;
    enum msg_grammar_kind kind;
    uint32_t len, lead;
    int32_t count;
    struct grammar *grammar;
    struct grammar_run *run;
    char text[];
};

struct grammar_draft {
    const struct grammar_vocab *vocab;
    struct grammar_use *use;
    struct error error;
};

struct grammars {
    const struct grammar_vocab *vocab;
    struct list used, idle;
    int32_t n_idle;
};

struct grammars *grammars_create(const struct grammar_vocab *vocab)
{
    struct grammars *g = calloc(1, sizeof *g);
    if (g == NULL)
        return NULL;
    g->vocab = vocab;
    list_init(&g->used);
    list_init(&g->idle);
    return g;
}

static void free_use(struct grammar_use *u)
{
    grammar_run_free(u->run);
    grammar_free(u->grammar);
    free(u);
}

static void drop(struct grammars *g, struct grammar_use *u)
{
    list_remove(&u->link);
    g->n_idle--;
    free_use(u);
}

void grammars_destroy(struct grammars *g)
{
    if (g == NULL)
        return;
    assert(list_empty(&g->used));
    while (!list_empty(&g->idle))
        drop(g, list_entry(g->idle.next, struct grammar_use, link));
    free(g);
}

static uint64_t hash_of(const struct msg_grammar *what)
{
    return hash_bytes((uint64_t)what->kind, what->text, what->len);
}

static bool is_of(const struct grammar_use *u, const struct msg_grammar *what)
{
    return u->kind == what->kind && u->len == what->len && u->lead == what->lead &&
           (what->len == 0 || memcmp(u->text, what->text, what->len) == 0);
}

static struct grammar_use *find(struct list *in, const struct msg_grammar *what, uint64_t hash)
{
    list_for_each(it, in)
    {
        struct grammar_use *u = list_entry(it, struct grammar_use, link);
        if (u->hash == hash && is_of(u, what))
            return u;
    }
    return NULL;
}

/* One that is held, counted; NULL: none is. */
static struct grammar_use *take_held(struct grammars *g, const struct msg_grammar *what)
{
    uint64_t hash = hash_of(what);
    struct grammar_use *u = find(&g->used, what, hash);
    if (u == NULL && (u = find(&g->idle, what, hash)) != NULL) {
        list_remove(&u->link);
        g->n_idle--;
        list_push_back(&g->used, &u->link);
    }
    if (u != NULL)
        u->count++;
    return u;
}

bool grammars_lacks(struct grammars *g, const struct msg_grammar *what)
{
    uint64_t hash = hash_of(what);
    return g->vocab != NULL && find(&g->used, what, hash) == NULL &&
           find(&g->idle, what, hash) == NULL;
}

/* ---- drafts ---- */

struct grammar_draft *grammars_draft(struct grammars *g, const struct msg_grammar *what)
{
    struct grammar_draft *d = calloc(1, sizeof *d);
    struct grammar_use *u = calloc(1, sizeof *u + what->len);
    if (d == NULL || u == NULL) {
        free(d);
        free(u);
        return NULL;
    }
    list_init(&u->link);
    u->hash = hash_of(what);
    u->kind = what->kind;
    u->len = what->len;
    u->lead = what->lead;
    if (what->len > 0)
        memcpy(u->text, what->text, what->len);
    d->vocab = g->vocab;
    d->use = u;
    return d;
}

void grammar_draft_compile(struct grammar_draft *d)
{
    struct grammar_use *u = d->use;
    const struct grammar_source source = {
        .kind = (enum grammar_kind)u->kind, .text = u->text, .len = u->len, .lead = u->lead};
    enum status st = grammar_compile_source(d->vocab, &source, &u->grammar, &d->error);
    if (st == ST_OK)
        st = grammar_run_create(u->grammar, d->vocab, &u->run, &d->error);
    if (st != ST_OK)
        err_prefix(&d->error, "grammar");
    d->error.status = st == ST_UNSUPPORTED ? ST_INVALID : st;
}

bool grammar_draft_is(const struct grammar_draft *d, const struct msg_grammar *what)
{
    return is_of(d->use, what);
}

const struct error *grammar_draft_error(const struct grammar_draft *d)
{
    return &d->error;
}

struct grammar_use *grammars_enter(struct grammars *g, struct grammar_draft *d)
{
    struct grammar_use *u = d->use;
    const struct msg_grammar what = {u->kind, u->text, u->len, u->lead};
    assert(u->run != NULL);
    struct grammar_use *held = take_held(g, &what);
    if (held != NULL) {
        grammar_draft_free(d);
        return held;
    }
    free(d);
    list_push_back(&g->used, &u->link);
    u->count = 1;
    return u;
}

void grammar_draft_free(struct grammar_draft *d)
{
    if (d == NULL)
        return;
    free_use(d->use);
    free(d);
}

enum status grammars_take(struct grammars *g, const struct msg_grammar *what,
                          struct grammar_use **out, struct error *err)
{
    if (g->vocab == NULL)
        return err_set(err, ST_INVALID, "grammar: this node has no tokenizer to follow one with");
    *out = take_held(g, what);
    if (*out != NULL)
        return ST_OK;
    struct grammar_draft *d = grammars_draft(g, what);
    if (d == NULL)
        return err_set(err, ST_NO_MEMORY, "no memory for a grammar");
    grammar_draft_compile(d);
    enum status st = d->error.status;
    if (st == ST_OK) {
        *out = grammars_enter(g, d);
        return ST_OK;
    }
    if (err != NULL)
        *err = d->error;
    grammar_draft_free(d);
    return st;
}

static size_t bytes_of(const struct grammar_use *u)
{
    return grammar_bytes(u->grammar) + grammar_run_bytes(u->run) + u->len;
}

void grammars_give(struct grammars *g, struct grammar_use *u)
{
    if (u == NULL || --u->count > 0)
        return;
    list_remove(&u->link);
    list_push_back(&g->idle, &u->link);
    g->n_idle++;
    size_t bytes = 0;
    list_for_each(it, &g->idle)
    {
        bytes += bytes_of(list_entry(it, struct grammar_use, link));
    }
    while (!list_empty(&g->idle) && (g->n_idle > GRAMMARS_MAX || bytes > GRAMMARS_BYTES_MAX)) {
        struct grammar_use *oldest = list_entry(g->idle.next, struct grammar_use, link);
        bytes -= bytes_of(oldest);
        drop(g, oldest);
    }
}

struct grammar_run *grammars_run(struct grammar_use *u)
{
    return u->run;
}

void grammars_tidy(struct grammars *g)
{
    size_t bytes = 0;
    list_for_each(it, &g->used)
    {
        struct grammar_run *run = list_entry(it, struct grammar_use, link)->run;
        grammar_run_tidy(run);
        bytes += grammar_run_bytes(run);
    }
    if (bytes <= 2 * (size_t)GRAMMARS_BYTES_MAX)
        return;
    list_for_each(it, &g->used)
    {
        grammar_run_forget(list_entry(it, struct grammar_use, link)->run);
    }
}
