#include "tokenizer/tokenizer.h"

#include <stdlib.h>
#include <string.h>

#include "base/utf8.h"
#include "tokenizer/internal.h"
#include "tokenizer/unicode.h"

void ids_fini(struct ids *a)
{
    free(a->v);
    *a = (struct ids){0};
}

bool ids_reserve(struct ids *a, size_t more)
{
    if (a->cap - a->n >= more)
        return true;
    size_t cap = a->cap ? a->cap : 64;
    if (more > SIZE_MAX / 2 / sizeof(*a->v) - a->n)
        return false;
    while (cap - a->n < more)
        cap *= 2;
    int32_t *v = realloc(a->v, cap * sizeof(*v));
    if (!v)
        return false;
    a->v = v;
    a->cap = cap;
    return true;
}

bool ids_push(struct ids *a, int32_t id)
{
    if (a->n == a->cap && !ids_reserve(a, 1))
        return false;
    a->v[a->n++] = id;
    return true;
}

bool ids_append(struct ids *a, const int32_t *v, size_t n)
{
    if (!ids_reserve(a, n))
        return false;
    if (n)
        memcpy(a->v + a->n, v, n * sizeof(*v));
    a->n += n;
    return true;
}

void tokenizer_free(struct tokenizer *t)
{
    if (!t)
        return;
    if (t->model)
        t->model->ops->destroy(t->model);
    normalizer_fini(&t->normalizer);
    pretokenizer_fini(&t->pretokenizer);
    postprocess_fini(&t->post);
    decoder_fini(&t->decoder);
    added_fini(&t->added);
    vocab_fini(&t->vocab);
    free(t->chat_template);
    free(t->tool_template);
    free(t);
}

/* One encoding under way. */
struct encode {
    const struct tokenizer *t;
    struct ids *out;
    struct error *err;
    bool parse_special;            /* in the normalized text */
    const struct text_span *spans; /* or NULL: all parts are alike */
    size_t n_spans;
    struct normalizer_run normalizer;
    struct pretokenizer_run pretokenizer;
    struct model_run model;
};

static enum status encode_word(void *arg, const char *s, size_t len)
{
    struct encode *e = arg;
    enum status st = e->t->model->ops->encode(e->t->model, &e->model, s, len, e->out);
    return st ? err_set(e->err, st, "tokenizer: no memory") : ST_OK;
}

static enum status push_id(struct encode *e, int32_t id)
{
    return ids_push(e->out, id) ? ST_OK : err_set(e->err, ST_NO_MEMORY, "tokenizer: no memory");
}

/* Text between raw added tokens: normalized, then searched for the other added tokens. */
static enum status encode_raw(struct encode *e, struct text_view raw)
{
    struct text_ref text = {raw.s, raw.len};
    e->normalizer.later = !raw.first;
    enum status st = normalizer_apply(&e->t->normalizer, &e->normalizer, &text, e->err);
    if (st)
        return st;
    struct added_walk w = {.tokens = &e->t->added,
                           .set = ADDED_NORMALIZED,
                           .text = text.s,
                           .len = text.len,
                           .parse_special = e->parse_special};
    while (added_next(&w)) {
        if (w.begin > w.done)
            st = pretokenizer_push(
                &e->pretokenizer,
                (struct text_view){text.s + w.done, w.begin - w.done, raw.first && w.done == 0});
        if (!st)
            st = push_id(e, w.id);
        if (st)
            return st;
    }
    return pretokenizer_push(
        &e->pretokenizer,
        (struct text_view){text.s + w.done, text.len - w.done, raw.first && w.done == 0});
}

static enum status encode_text(struct encode *e, const char *text, size_t len)
{
    struct added_walk w = {.tokens = &e->t->added,
                           .set = e->spans ? ADDED_RAW_TRUST : ADDED_RAW,
                           .text = text,
                           .len = len,
                           .parse_special = e->parse_special,
                           .spans = e->spans,
                           .n_spans = e->n_spans};
    enum status st = ST_OK;
    while (added_next(&w)) {
        if (w.begin > w.done)
            st = encode_raw(e, (struct text_view){text + w.done, w.begin - w.done, w.done == 0});
        if (!st)
            st = push_id(e, w.id);
        if (st)
            return st;
    }
    if (w.done < len)
        st = encode_raw(e, (struct text_view){text + w.done, len - w.done, w.done == 0});
    return st;
}

static enum status encode(struct encode *e, const char *text, size_t len, unsigned flags)
{
    const struct tokenizer *t = e->t;
    size_t mark = e->out->n;
    bool add = flags & TOKENIZE_ADD_SPECIAL;
    e->pretokenizer.p = &t->pretokenizer;
    e->pretokenizer.sink = encode_word;
    e->pretokenizer.arg = e;
    e->pretokenizer.err = e->err;
    enum status st = ST_OK;
    if (add && !ids_append(e->out, t->post.before.v, t->post.before.n))
        st = err_set(e->err, ST_NO_MEMORY, "tokenizer: no memory");
    if (!st && len && !(add && t->post.drops_text))
        st = encode_text(e, text, len);
    if (!st && add && !ids_append(e->out, t->post.after.v, t->post.after.n))
        st = err_set(e->err, ST_NO_MEMORY, "tokenizer: no memory");
    if (st)
        e->out->n = mark;
    normalizer_run_fini(&e->normalizer);
    pretokenizer_run_fini(&e->pretokenizer);
    model_run_fini(&e->model);
    return st;
}

#define TEXT_BYTES_MAX ((size_t)1 << 31)

static enum status check_size(size_t len, struct error *err)
{
    if (len <= TEXT_BYTES_MAX)
        return ST_OK;
    return err_set(err, ST_INVALID, "text of %zu bytes, at most %zu", len, TEXT_BYTES_MAX);
}

enum status tokenizer_encode(const struct tokenizer *t, const char *text, size_t len,
                             unsigned flags, struct ids *out, struct error *err)
{
    enum status st = check_size(len, err);
    if (st)
        return st;
    struct encode e = {
        .t = t, .out = out, .err = err, .parse_special = flags & TOKENIZE_PARSE_SPECIAL};
    if (utf8_valid(text, len))
        return encode(&e, text, len, flags);
    struct buf valid = {.max = 3 * len + 1};
    text_make_valid(text, len, false, &valid);
    if (valid.failed)
        st = err_set(err, ST_NO_MEMORY, "tokenizer: no memory");
    else
        st = encode(&e, valid.data, valid.len, flags);
    buf_fini(&valid);
    return st;
}

/* The spans with each one's text made valid by itself, so that a span's end stays where it is. */
static enum status encode_mended(struct encode *e, const char *text, unsigned flags)
{
    struct text_span *spans = malloc(e->n_spans * sizeof(*spans));
    struct buf valid = {.max = UINT32_MAX};
    enum status st = ST_OK;
    for (size_t i = 0; spans && i < e->n_spans; i++) {
        size_t before = valid.len;
        text_make_valid(text, e->spans[i].len, false, &valid);
        text += e->spans[i].len;
        spans[i] = (struct text_span){valid.len - before, e->spans[i].trusted};
    }
    if (!spans || valid.failed) {
        st = err_set(e->err, ST_NO_MEMORY, "tokenizer: no memory");
    } else {
        e->spans = spans;
        st = encode(e, valid.data ? valid.data : "", valid.len, flags);
    }
    buf_fini(&valid);
    free(spans);
    return st;
}

enum status tokenizer_encode_spans(const struct tokenizer *t, const struct spanned_text *in,
                                   unsigned flags, struct ids *out, struct error *err)
{
    size_t len = 0;
    bool trusted = false, untrusted = false;
    for (size_t i = 0; i < in->n_spans; i++) {
        const struct text_span *span = &in->spans[i];
        if (!span->len)
            continue;
        enum status st = check_size(span->len, err);
        if (!st)
            st = check_size(len += span->len, err);
        if (st)
            return st;
        trusted = trusted || span->trusted;
        untrusted = untrusted || !span->trusted;
    }
    if (!trusted || !untrusted) {
        flags &= ~(unsigned)TOKENIZE_PARSE_SPECIAL;
        flags |= trusted ? TOKENIZE_PARSE_SPECIAL : 0u;
        return tokenizer_encode(t, in->text, len, flags, out, err);
    }
    struct encode e = {.t = t, .out = out, .err = err, .spans = in->spans, .n_spans = in->n_spans};
    return utf8_valid(in->text, len) ? encode(&e, in->text, len, flags)
                                     : encode_mended(&e, in->text, flags);
}

size_t tokenizer_vocab_size(const struct tokenizer *t)
{
    size_t a = t->vocab.id_end, b = t->added.vocab.id_end;
    return a > b ? a : b;
}

const char *tokenizer_token(const struct tokenizer *t, int32_t id)
{
    const char *s = vocab_string(&t->added.vocab, id, NULL);
    return s ? s : vocab_string(&t->vocab, id, NULL);
}

bool tokenizer_is_special(const struct tokenizer *t, int32_t id)
{
    return added_is_special(&t->added, id);
}

int32_t tokenizer_find(const struct tokenizer *t, const char *token)
{
    size_t len = strlen(token);
    int32_t id = vocab_find(&t->added.vocab, token, len);
    return id >= 0 ? id : vocab_find(&t->vocab, token, len);
}

int32_t tokenizer_bos(const struct tokenizer *t)
{
    return t->bos;
}

int32_t tokenizer_eos(const struct tokenizer *t)
{
    return t->eos;
}

const char *tokenizer_chat_template(const struct tokenizer *t)
{
    return t->chat_template;
}

const char *tokenizer_tool_template(const struct tokenizer *t)
{
    return t->tool_template;
}
