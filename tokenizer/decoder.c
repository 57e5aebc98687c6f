#include "tokenizer/decoder.h"

#include <stdlib.h>
#include <string.h>

#include "base/utf8.h"
#include "tokenizer/bytelevel.h"
#include "tokenizer/unicode.h"

void decoder_run_fini(struct decoder_run *run)
{
    for (size_t i = 0; i < run->d->n; i++) {
        buf_fini(&run->stage[i].held);
        buf_fini(&run->stage[i].work);
        regex_run_fini(&run->stage[i].regex);
    }
}

void decoder_run_reset(struct decoder_run *run)
{
    for (size_t i = 0; i < run->d->n; i++) {
        buf_clear(&run->stage[i].held);
        run->stage[i].any = run->stage[i].settled = false;
        run->stage[i].stripped = 0;
    }
}

static void push(struct decoder_run *run, size_t i, const char *s, size_t len);

static void push_held(struct decoder_run *run, size_t i, size_t len)
{
    struct buf *held = &run->stage[i].held;
    if (len)
        push(run, i + 1, held->data, len);
    buf_consume(held, len);
}

/* The byte of "<0xHH>", -1: another token. The digits may have a sign, as Rust's from_str_radix
 * takes them. */
static int fallback_byte(const char *s, size_t len)
{
    if (len != 6 || memcmp(s, "<0x", 3) || s[5] != '>')
        return -1;
    int value = 0;
    for (int i = 3; i < 5; i++) {
        char c = s[i];
        int digit = c >= '0' && c <= '9'   ? c - '0'
                    : c >= 'a' && c <= 'f' ? c - 'a' + 10
                    : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                           : -1;
        if (digit < 0 && !(c == '+' && i == 3))
            return -1;
        value = value * 16 + (digit < 0 ? 0 : digit);
    }
    return value;
}

/* Ends a run of byte tokens: its text, or a U+FFFD for each byte. */
static void end_bytes(struct decoder_run *run, size_t i)
{
    struct buf *held = &run->stage[i].held;
    if (!held->len)
        return;
    if (utf8_valid(held->data, held->len)) {
        push_held(run, i, held->len);
        return;
    }
    for (size_t n = held->len; n > 0; n--)
        push(run, i + 1, "\xef\xbf\xbd", 3);
    buf_clear(held);
}

static void byte_fallback(struct decoder_run *run, size_t i, const char *s, size_t len)
{
    int byte = fallback_byte(s, len);
    if (byte >= 0) {
        buf_putc(&run->stage[i].held, (char)byte);
        return;
    }
    end_bytes(run, i);
    push(run, i + 1, s, len);
}

static void emit_valid(struct decoder_run *run, size_t i, bool last)
{
    struct buf *held = &run->stage[i].held, *work = &run->stage[i].work;
    if (!held->len)
        return;
    buf_clear(work);
    size_t used = text_make_valid(held->data, held->len, !last, work);
    buf_consume(held, used);
    if (work->len)
        push(run, i + 1, work->data, work->len);
}

static void byte_level(struct decoder_run *run, size_t i, const char *s, size_t len)
{
    struct buf *held = &run->stage[i].held;
    if (!bytelevel_unmap(s, len, held))
        buf_append(held, s, len);
    emit_valid(run, i, false);
}

static void strip_token(struct decoder_run *run, size_t i, const char *s, size_t len)
{
    const struct dec_stage *stage = &run->d->stages[i];
    size_t n = stage->text_len;
    for (size_t k = 0; k < stage->start && len >= n && !memcmp(s, stage->text, n); k++) {
        s += n;
        len -= n;
    }
    for (size_t k = 0; k < stage->stop && len >= n && !memcmp(s + len - n, stage->text, n); k++)
        len -= n;
    push(run, i + 1, s, len);
}

/* Takes up to `start` characters at the head of the stream, and keeps up to `stop` back at its end.
 */
static void strip_stream(struct decoder_run *run, size_t i, const char *s, size_t len)
{
    const struct dec_stage *stage = &run->d->stages[i];
    size_t n = stage->text_len;
    while (!run->stage[i].settled && len) {
        if (run->stage[i].stripped < stage->start && len >= n && !memcmp(s, stage->text, n)) {
            run->stage[i].stripped++;
            s += n;
            len -= n;
        } else {
            run->stage[i].settled = true;
        }
    }
    if (!len)
        return;
    if (!stage->stop) {
        push(run, i + 1, s, len);
        return;
    }
    struct buf *held = &run->stage[i].held;
    buf_append(held, s, len);
    size_t keep = 0;
    for (size_t k = 0; k < stage->stop && held->len - keep >= n; k++) {
        if (memcmp(held->data + held->len - keep - n, stage->text, n))
            break;
        keep += n;
    }
    push_held(run, i, held->len - keep);
}

/* Replaces in s; what may be the start of a pattern that goes on is not used up unless `last`.
 * Returns bytes used. */
static size_t replace_in(struct decoder_run *run, size_t i, struct buf *text, bool last)
{
    const struct dec_stage *stage = &run->d->stages[i];
    struct buf *work = &run->stage[i].work;
    const char *s = text->data;
    size_t len = text->len, done = 0, n = stage->text_len;
    buf_clear(work);
    if (stage->pattern) {
        struct regex_walk w = {
            .regex = stage->pattern, .run = &run->stage[i].regex, .text = s, .len = len};
        while (regex_next(&w, NULL) == ST_OK) {
            buf_append(work, s + done, w.begin - done);
            buf_append(work, stage->content, stage->content_len);
            done = w.end;
        }
        buf_append(work, s + done, len - done);
        return len;
    }
    const char *hit;
    while (n && (hit = text_find(s + done, len - done, stage->text, n))) {
        buf_append(work, s + done, (size_t)(hit - s) - done);
        buf_append(work, stage->content, stage->content_len);
        done = (size_t)(hit - s) + n;
    }
    size_t keep = last || !n ? 0 : n - 1;
    if (keep > len - done)
        keep = len - done;
    while (keep && memcmp(s + len - keep, stage->text, keep))
        keep--;
    buf_append(work, s + done, len - done - keep);
    return len - keep;
}

static void replace(struct decoder_run *run, size_t i, const char *s, size_t len)
{
    const struct dec_stage *stage = &run->d->stages[i];
    struct buf *held = &run->stage[i].held;
    if (!len) {
        push(run, i + 1, "", 0); /* an empty token still counts as one */
        return;
    }
    buf_append(held, s, len);
    if ((stage->fused && stage->pattern) || held->failed)
        return; /* a match may span chunks: all at the end */
    size_t used = replace_in(run, i, held, !stage->fused);
    buf_consume(held, used);
    push(run, i + 1, run->stage[i].work.data, run->stage[i].work.len);
}

static void metaspace(struct decoder_run *run, size_t i, const char *s, size_t len, bool first)
{
    const struct dec_stage *stage = &run->d->stages[i];
    struct buf *work = &run->stage[i].work;
    buf_clear(work);
    for (size_t at = 0; at < len;) {
        size_t n = text_char_len((unsigned char)s[at]);
        if (n != stage->text_len || memcmp(s + at, stage->text, n))
            buf_append(work, s + at, n);
        else if (!first || stage->keep_first)
            buf_putc(work, ' ');
        at += n;
    }
    push(run, i + 1, work->data ? work->data : "", work->len);
}

static void replace_all(struct buf *b, const char *from, const char *to)
{
    size_t n = strlen(from), done = 0;
    const char *hit = b->len ? text_find(b->data, b->len, from, n) : NULL;
    if (!hit)
        return;
    struct buf out = {0};
    for (; hit; hit = text_find(b->data + done, b->len - done, from, n)) {
        buf_append(&out, b->data + done, (size_t)(hit - b->data) - done);
        buf_puts(&out, to);
        done = (size_t)(hit - b->data) + n;
    }
    buf_append(&out, b->data + done, b->len - done);
    buf_fini(b);
    *b = out;
}

static void wordpiece(struct decoder_run *run, size_t i, const char *s, size_t len, bool first)
{
    static const char *const cleanup[][2] = {
        {" .", "."},   {" ?", "?"},     {" !", "!"},     {" ,", ","},
        {" ' ", "'"},  {" n't", "n't"}, {" 'm", "'m"},   {" do not", " don't"},
        {" 's", "'s"}, {" 've", "'ve"}, {" 're", "'re"},
    };
    const struct dec_stage *stage = &run->d->stages[i];
    struct buf *work = &run->stage[i].work;
    buf_clear(work);
    if (!first && len >= stage->text_len && !memcmp(s, stage->text, stage->text_len)) {
        s += stage->text_len;
        len -= stage->text_len;
    } else if (!first) {
        buf_putc(work, ' ');
    }
    buf_append(work, s, len);
    for (size_t k = 0; stage->cleanup && k < sizeof(cleanup) / sizeof(cleanup[0]); k++)
        replace_all(work, cleanup[k][0], cleanup[k][1]);
    push(run, i + 1, work->data, work->len);
}

/* One token behind: the suffix is a space, except in the last token. */
static void bpe_release(struct decoder_run *run, size_t i, bool last)
{
    const struct dec_stage *stage = &run->d->stages[i];
    struct buf *held = &run->stage[i].held;
    if (stage->text_len)
        replace_all(held, stage->text, last ? "" : " ");
    push_held(run, i, held->len);
}

/* A stage on one token, or on one chunk of a fused stream. Recursion is as deep as there are
 * stages. */
static void push(struct decoder_run *run, size_t i, const char *s, size_t len)
{
    if (i == run->d->n) {
        buf_append(run->out, s, len);
        return;
    }
    const struct dec_stage *stage = &run->d->stages[i];
    bool first = !run->stage[i].any || stage->fused;
    bool begun = run->stage[i].any;
    run->stage[i].any = true;
    switch (stage->kind) {
    case DEC_FUSE:
        push(run, i + 1, s, len);
        break;
    case DEC_STRIP:
        if (stage->fused)
            strip_stream(run, i, s, len);
        else
            strip_token(run, i, s, len);
        break;
    case DEC_REPLACE:
        replace(run, i, s, len);
        break;
    case DEC_METASPACE:
        metaspace(run, i, s, len, first);
        break;
    case DEC_BYTE_LEVEL:
        if (stage->fused) /* the whole is mapped, or it is not: at the end */
            buf_append(&run->stage[i].held, s, len);
        else
            byte_level(run, i, s, len);
        break;
    case DEC_BYTE_FALLBACK:
        if (stage->fused)
            push(run, i + 1, s, len);
        else
            byte_fallback(run, i, s, len);
        break;
    case DEC_WORDPIECE:
        if (stage->fused)
            buf_append(&run->stage[i].held, s, len);
        else
            wordpiece(run, i, s, len, first);
        break;
    case DEC_BPE:
        if (begun && !stage->fused)
            bpe_release(run, i, false);
        buf_append(&run->stage[i].held, s, len);
        break;
    case DEC_JOIN:
        if (begun)
            push(run, i + 1, " ", 1);
        push(run, i + 1, s, len);
        break;
    }
}

static void flush_stage(struct decoder_run *run, size_t i)
{
    const struct dec_stage *stage = &run->d->stages[i];
    struct buf *held = &run->stage[i].held;
    if (!held->len)
        return;
    switch (stage->kind) {
    case DEC_BYTE_FALLBACK:
        end_bytes(run, i);
        break;
    case DEC_BYTE_LEVEL:
        if (stage->fused) {
            struct buf whole = *held;
            *held = (struct buf){0};
            byte_level(run, i, whole.data, whole.len);
            buf_fini(&whole);
        }
        emit_valid(run, i, true);
        break;
    case DEC_REPLACE:
        replace_in(run, i, held, true);
        push(run, i + 1, run->stage[i].work.data, run->stage[i].work.len);
        break;
    case DEC_WORDPIECE: {
        struct buf whole = *held;
        *held = (struct buf){0};
        wordpiece(run, i, whole.data, whole.len, true);
        buf_fini(&whole);
        break;
    }
    case DEC_BPE:
        bpe_release(run, i, true);
        break;
    default: /* STRIP: what is held is stripped */
        break;
    }
    buf_clear(held);
}

void decoder_push(struct decoder_run *run, const char *token, size_t len)
{
    push(run, 0, token, len);
}

void decoder_flush(struct decoder_run *run)
{
    for (size_t i = 0; i < run->d->n; i++)
        flush_stage(run, i);
}

void decoder_token_bytes(const struct decoder *d, const char *token, size_t len, struct buf *out)
{
    struct decoder_run run = {.d = d, .out = out};
    bool bytes = false;
    for (size_t i = 0; i < d->n; i++) {
        run.stage[i].any = d->stages[i].kind != DEC_JOIN && d->stages[i].kind != DEC_BPE;
        run.stage[i].settled = true;
        if (d->stages[i].kind == DEC_BYTE_FALLBACK && fallback_byte(token, len) >= 0) {
            buf_putc(out, (char)fallback_byte(token, len));
            bytes = true;
        } else if (i == 0 && d->stages[i].kind == DEC_BYTE_LEVEL) {
            bytes = bytelevel_unmap(token, len, out);
        }
    }
    if (!bytes) {
        decoder_push(&run, token, len);
        decoder_flush(&run);
    }
    decoder_run_fini(&run);
}
