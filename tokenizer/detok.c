/* Ids to text: whole, and as a stream. Both push tokens through the same decoder, so they cannot
 * differ. */
#include <stdlib.h>

#include "tokenizer/internal.h"

struct detok {
    const struct tokenizer *t;
    bool skip_special;
    struct decoder_run run;
    struct buf discard;
};

static void push_id(const struct tokenizer *t, struct decoder_run *run, bool skip_special,
                    int32_t id)
{
    size_t len;
    if (skip_special && added_is_special(&t->added, id))
        return;
    const char *s = added_decoded(&t->added, id, &len);
    if (!s)
        s = vocab_string(&t->vocab, id, &len);
    if (s)
        decoder_push(run, s, len);
}

void tokenizer_decode(const struct tokenizer *t, const int32_t *ids, size_t n, bool skip_special,
                      struct buf *out)
{
    struct decoder_run run = {.d = &t->decoder, .out = out};
    for (size_t i = 0; i < n; i++)
        push_id(t, &run, skip_special, ids[i]);
    decoder_flush(&run);
    decoder_run_fini(&run);
}

bool tokenizer_token_bytes(const struct tokenizer *t, int32_t id, struct buf *out)
{
    size_t len;
    const char *s = vocab_string(&t->added.vocab, id, &len);
    if (s && added_is_special(&t->added, id)) {
        buf_append(out, s, len);
        return true;
    }
    if (!s)
        s = vocab_string(&t->vocab, id, &len);
    if (s)
        decoder_token_bytes(&t->decoder, s, len, out);
    return s;
}

struct detok *detok_create(const struct tokenizer *t, bool skip_special)
{
    struct detok *d = calloc(1, sizeof(*d));
    if (!d)
        return NULL;
    d->t = t;
    d->skip_special = skip_special;
    d->run.d = &t->decoder;
    return d;
}

void detok_destroy(struct detok *d)
{
    if (!d)
        return;
    decoder_run_fini(&d->run);
    buf_fini(&d->discard);
    free(d);
}

void detok_push(struct detok *d, int32_t id, struct buf *out)
{
    d->run.out = out;
    push_id(d->t, &d->run, d->skip_special, id);
}

void detok_flush(struct detok *d, struct buf *out)
{
    d->run.out = out;
    decoder_flush(&d->run);
}

void detok_reset(struct detok *d, const int32_t *ids, size_t n)
{
    decoder_run_reset(&d->run);
    buf_clear(&d->discard);
    d->run.out = &d->discard;
    /* Once some text has come out, all that depends on being first is settled. */
    for (size_t i = 0; i < n && !d->discard.len; i++)
        push_id(d->t, &d->run, d->skip_special, ids[i]);
    decoder_flush(&d->run);
}
