/* Tokens of one choice to text, cut at the first stop string.
 *
 * Which stop string wins must not depend on where tokens end: it is the one that is complete first,
 * of several complete at the same byte the longest. So the text is looked at as if it came byte by
 * byte. What is held back is the longest end of the text that begins a stop string. */
#include <stdlib.h>
#include <string.h>

#include "router/api.h"

struct api_text {
    struct api_text_args args;
    struct detok *detok;
    struct buf held; /* decoded, not given out */
    int32_t tokens;
    size_t special; /* bytes of a special token at the end of what came out last */
};

struct api_text *api_text_create(const struct api_text_args *args, struct msg_ids prompt)
{
    struct api_text *t = calloc(1, sizeof *t);
    if (!t)
        return NULL;
    t->args = *args;
    t->detok = detok_create(args->tokenizer, args->skip_special || args->tell_special);
    if (!t->detok) {
        free(t);
        return NULL;
    }
    detok_reset(t->detok, prompt.v, prompt.n);
    return t;
}

void api_text_destroy(struct api_text *t)
{
    if (!t)
        return;
    detok_destroy(t->detok);
    buf_fini(&t->held);
    free(t);
}

/* The stop string that ends first, looking at ends beyond `from`. */
static int find_stop(const struct api_text *t, size_t from, size_t *begin)
{
    const struct buf *h = &t->held;
    int found = -1;
    size_t best_end = 0, best_len = 0;
    for (size_t i = 0; i < t->args.n_stops; i++) {
        const struct api_text_ref *s = &t->args.stops[i];
        size_t at = from >= s->len ? from - s->len + 1 : 0;
        if (h->len < s->len || at > h->len - s->len)
            continue;
        const char *hit = memmem(h->data + at, h->len - at, s->text, s->len);
        if (!hit)
            continue;
        size_t end = (size_t)(hit - h->data) + s->len;
        if (found < 0 || end < best_end || (end == best_end && s->len > best_len)) {
            found = (int)i;
            best_end = end;
            best_len = s->len;
            *begin = end - s->len;
        }
    }
    return found;
}

/* Bytes at the end of what is held that some stop string begins with. */
static size_t begun_bytes(const struct api_text *t)
{
    const struct buf *h = &t->held;
    size_t most = 0;
    for (size_t i = 0; i < t->args.n_stops; i++) {
        const struct api_text_ref *s = &t->args.stops[i];
        size_t n = s->len - 1 < h->len ? s->len - 1 : h->len;
        for (; n > most; n--) {
            if (memcmp(h->data + h->len - n, s->text, n) == 0) {
                most = n;
                break;
            }
        }
    }
    return most;
}

/* Looks at what was appended from `from` on and gives out what is certain. */
static int settle(struct api_text *t, size_t from, struct buf *out)
{
    size_t begin = 0;
    int stop = find_stop(t, from, &begin);
    if (stop >= 0) {
        size_t keep = begin + (t->args.include_stop ? t->args.stops[stop].len : 0);
        buf_append(out, t->held.data, keep);
        buf_clear(&t->held);
        return stop;
    }
    size_t give = t->held.len - begun_bytes(t);
    if (give) {
        buf_append(out, t->held.data, give);
        buf_consume(&t->held, give);
    }
    return -1;
}

/* The stop string that is just this text. */
static int stop_of(const struct api_text *t, const char *text, size_t len)
{
    for (size_t i = 0; i < t->args.n_stops; i++) {
        const struct api_text_ref *s = &t->args.stops[i];
        if (s->len == len && memcmp(s->text, text, len) == 0)
            return (int)i;
    }
    return -1;
}

/* A special token ends what was held: no character and no stop string goes across it, and only one
 * that is the whole token is found in it. */
static int push_special(struct api_text *t, int32_t id, struct buf *out)
{
    bool look = t->args.n_stops && t->tokens > t->args.min_tokens;
    size_t from = t->held.len;
    int stop = -1;
    detok_flush(t->detok, &t->held);
    if (look && t->held.len > from)
        stop = settle(t, from, out);
    if (stop >= 0)
        return stop;
    if (t->held.len)
        buf_append(out, t->held.data, t->held.len);
    buf_clear(&t->held);
    from = out->len;
    tokenizer_token_bytes(t->args.tokenizer, id, out);
    t->special = out->len - from;
    if (look && t->special)
        stop = stop_of(t, out->data + from, t->special);
    if (stop >= 0 && !t->args.include_stop) {
        out->len = from;
        t->special = 0;
    }
    return stop;
}

size_t api_text_special_bytes(const struct api_text *t)
{
    return t->special;
}

int api_text_push(struct api_text *t, int32_t id, struct buf *out)
{
    t->tokens++;
    t->special = 0;
    if (t->args.tell_special && tokenizer_is_special(t->args.tokenizer, id))
        return push_special(t, id, out);
    if (!t->args.n_stops || t->tokens <= t->args.min_tokens) {
        detok_push(t->detok, id, out);
        return -1;
    }
    size_t from = t->held.len;
    detok_push(t->detok, id, &t->held);
    return t->held.len > from ? settle(t, from, out) : -1;
}

int api_text_finish(struct api_text *t, struct buf *out)
{
    size_t from = t->held.len;
    int stop = -1;
    t->special = 0;
    detok_flush(t->detok, &t->held);
    if (t->held.len > from && t->tokens > t->args.min_tokens && t->args.n_stops)
        stop = settle(t, from, out);
    if (t->held.len)
        buf_append(out, t->held.data, t->held.len);
    buf_clear(&t->held);
    return stop;
}
