#include "tokenizer/added_tokens.h"

#include <stdlib.h>
#include <string.h>

#include "tokenizer/parse.h"
#include "tokenizer/unicode.h"

static enum status read_token(const json *v, struct added_token *t, struct error *err)
{
    enum status st = parse_bool(v, "special", false, &t->special, err);
    if (!st)
        st = parse_bool(v, "single_word", false, &t->single_word, err);
    if (!st)
        st = parse_bool(v, "lstrip", false, &t->lstrip, err);
    if (!st)
        st = parse_bool(v, "rstrip", false, &t->rstrip, err);
    return st ? st : parse_bool(v, "normalized", !t->special, &t->normalized, err);
}

static enum status mark_special(struct added_tokens *a, int32_t id, struct error *err)
{
    if ((size_t)id >= a->special_ids) {
        size_t bits = ((size_t)id + 4096) & ~(size_t)4095;
        uint8_t *p = realloc(a->special, bits / 8);
        if (!p)
            return err_set(err, ST_NO_MEMORY, "added tokens: no memory");
        memset(p + a->special_ids / 8, 0, (bits - a->special_ids) / 8);
        a->special = p;
        a->special_ids = bits;
    }
    a->special[id / 8] |= (uint8_t)(1u << id % 8);
    return ST_OK;
}

bool added_is_special(const struct added_tokens *a, int32_t id)
{
    return id >= 0 && (size_t)id < a->special_ids && a->special[id / 8] >> id % 8 & 1;
}

const char *added_decoded(const struct added_tokens *a, int32_t id, size_t *len)
{
    const char *s = vocab_string(&a->decoded, id, len);
    return s ? s : vocab_string(&a->vocab, id, len);
}

enum status added_add(struct added_tokens *a, const struct added_source *source, struct error *err)
{
    struct text_ref content = {0};
    struct added_token t = {0};
    enum status st = parse_str(source->v, "content", NULL, &content, err);
    if (!st)
        st = read_token(source->v, &t, err);
    if (st)
        return st;
    const char *s = content.s;
    size_t len = content.len;
    if (len == 0 || vocab_find(&a->vocab, s, len) >= 0)
        return ST_OK;
    if (len > ADDED_CONTENT_MAX || a->n >= ADDED_TOKENS_MAX)
        return err_set(err, ST_INVALID, "content of %zu bytes in token %zu, at most %d in %d", len,
                       a->n, ADDED_CONTENT_MAX, ADDED_TOKENS_MAX);
    int32_t known = vocab_find(source->model, s, len);
    int64_t id = known >= 0 ? known : source->id;
    if (a->n == a->cap) {
        size_t cap = a->cap ? 2 * a->cap : 64;
        struct added_token *v = realloc(a->v, cap * sizeof(*v));
        if (!v)
            return err_set(err, ST_NO_MEMORY, "added tokens: no memory");
        a->v = v;
        a->cap = cap;
    }
    st = vocab_add(&a->vocab, s, len, id, err);
    if (st)
        return st;
    t.id = (int32_t)id;
    a->v[a->n++] = t;
    return t.special ? mark_special(a, t.id, err) : ST_OK;
}

enum status added_finish(struct added_tokens *a, const struct normalizer *normalizer,
                         struct error *err)
{
    struct normalizer_run run = {0};
    enum status st = ST_OK;
    bool ok = true;
    for (size_t i = 0; i < a->n && !st && ok; i++) {
        const struct added_token *t = &a->v[i];
        const struct vocab_entry *e = &a->vocab.entries[i];
        struct text_ref text = {a->vocab.text + e->off, e->len};
        if (!t->normalized)
            ok = trie_add(&a->sets[ADDED_RAW], text.s, text.len, (int32_t)i);
        if (!t->normalized || t->special)
            ok = ok && trie_add(&a->sets[ADDED_RAW_TRUST], text.s, text.len, (int32_t)i);
        if (!t->normalized)
            continue;
        st = normalizer_apply(normalizer, &run, &text, err);
        if (!st && text.len)
            ok = ok && trie_add(&a->sets[ADDED_NORMALIZED], text.s, text.len, (int32_t)i);
        if (!st && (text.len != e->len || memcmp(text.s, a->vocab.text + e->off, e->len)))
            st = vocab_add(&a->decoded, text.s, text.len, t->id, err);
    }
    normalizer_run_fini(&run);
    if (!ok)
        return err_set(err, ST_NO_MEMORY, "added tokens: no memory");
    return st;
}

void added_fini(struct added_tokens *a)
{
    free(a->v);
    free(a->special);
    vocab_fini(&a->vocab);
    vocab_fini(&a->decoded);
    for (int i = 0; i < ADDED_SETS; i++)
        trie_fini(&a->sets[i]);
    *a = (struct added_tokens){0};
}

/* Trust of [begin, end): all of it, none of it, or both. */
enum trust { TRUST_NONE, TRUST_ALL, TRUST_MIXED };

static enum trust trust_of(struct added_walk *w, size_t begin, size_t end)
{
    if (!w->spans)
        return w->parse_special ? TRUST_ALL : TRUST_NONE;
    while (w->span + 1 < w->n_spans && w->span_begin + w->spans[w->span].len <= begin)
        w->span_begin += w->spans[w->span++].len;
    bool yes = false, no = false;
    size_t at = w->span_begin;
    for (size_t i = w->span; i < w->n_spans && at < end; at += w->spans[i++].len) {
        if (!w->spans[i].len)
            continue;
        yes = yes || w->spans[i].trusted;
        no = no || !w->spans[i].trusted;
    }
    return yes && no ? TRUST_MIXED : yes ? TRUST_ALL : TRUST_NONE;
}

static bool word_before(const char *s, size_t at)
{
    uint32_t cp;
    if (at == 0)
        return false;
    text_next(s + text_prev(s, at), &cp);
    return uc_is_word(cp);
}

static bool word_after(const char *s, size_t len, size_t at)
{
    uint32_t cp;
    if (at >= len)
        return false;
    text_next(s + at, &cp);
    return uc_is_word(cp);
}

/* The longest token at s[at] that may be taken there, NULL: none. *skip is how far to go on when
 * none. */
static const struct added_token *match_at(struct added_walk *w, size_t at, size_t *end,
                                          size_t *skip)
{
    const struct added_tokens *a = w->tokens;
    const struct trie *trie = &a->sets[w->set];
    const struct added_token *longest = NULL, *allowed = NULL;
    enum trust longest_trust = TRUST_ALL;
    uint32_t node = TRIE_ROOT;
    *skip = 1;
    for (size_t i = at; i < w->len; i++) {
        node = trie_step(trie, node, (unsigned char)w->text[i]);
        if (node == TRIE_NONE)
            break;
        if (trie->values[node] < 0)
            continue;
        const struct added_token *t = &a->v[trie->values[node]];
        enum trust trust = t->special ? trust_of(w, at, i + 1) : TRUST_ALL;
        longest = t;
        longest_trust = trust;
        *skip = i + 1 - at;
        if (trust == TRUST_ALL) {
            allowed = t;
            *end = i + 1;
        }
    }
    if (!longest)
        return NULL;
    if (longest_trust == TRUST_NONE)
        return NULL; /* typed by a user: text, all of it */
    if (longest_trust == TRUST_MIXED)
        *skip = 1; /* half typed: what is trusted may yet match on its own */
    return allowed;
}

static void strip_around(struct added_walk *w, const struct added_token *t)
{
    uint32_t cp;
    while (t->lstrip && w->begin > w->done) {
        size_t at = text_prev(w->text, w->begin);
        text_next(w->text + at, &cp);
        if (!uc_is_space(cp))
            break;
        w->begin = at;
    }
    while (t->rstrip && w->end < w->len) {
        size_t n = text_next(w->text + w->end, &cp);
        if (!uc_is_space(cp))
            break;
        w->end += n;
    }
}

bool added_next(struct added_walk *w)
{
    const struct trie *trie = &w->tokens->sets[w->set];
    w->done = w->end;
    while (trie->n && w->pos < w->len) {
        if (trie->root[(unsigned char)w->text[w->pos]] == TRIE_NONE) {
            w->pos++;
            continue;
        }
        size_t end = 0, skip = 1, at = w->pos;
        const struct added_token *t = match_at(w, at, &end, &skip);
        if (!t) {
            w->pos += skip;
            continue;
        }
        w->pos = end;
        if (t->single_word && (word_before(w->text, at) || word_after(w->text, w->len, end)))
            continue;
        w->begin = at;
        w->end = end;
        strip_around(w, t);
        w->id = t->id;
        return true;
    }
    return false;
}
