/* The arena, the way out on errors, the charges for work and depth, and strings under construction.
 */
#include "tokenizer/template/run.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A chunk of the arena. Big requests get a chunk of their own, which can be resized in place of
 * being copied. */
struct tchunk {
    struct tchunk *next;
    size_t used, size;
    bool own;
    _Alignas(16) char data[];
};

enum { CHUNK_FIRST = 64 << 10, CHUNK_OWN = 32 << 10, CHUNK_MAX = 1 << 20, DEPTH_MAX = 1000 };

void tmpl_fail(struct trun *r, enum status st, const char *fmt, ...)
{
    char text[480];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    r->status = err_set(r->err, st, "%s", text);
    longjmp(r->fail, 1);
}

void tmpl_raise(struct trun *r, const char *fmt, ...)
{
    char text[440];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    tmpl_fail(r, ST_INVALID, "chat template, line %u: %s", r->line, text);
}

static struct tchunk *chunk_new(struct trun *r, size_t size, bool own)
{
    if (size > r->arena_max || r->arena_bytes > r->arena_max - size)
        tmpl_raise(r, "uses more than %zu bytes of memory", r->arena_max);
    struct tchunk *c = malloc(sizeof *c + size);
    if (c == NULL)
        tmpl_fail(r, ST_NO_MEMORY, "chat template: out of memory");
    r->arena_bytes += size;
    c->used = 0;
    c->size = size;
    c->own = own;
    /* An own chunk goes behind the current one, which stays current. */
    if (own && r->chunks != NULL) {
        c->next = r->chunks->next;
        r->chunks->next = c;
    } else {
        c->next = r->chunks;
        r->chunks = c;
    }
    return c;
}

void *tmpl_alloc(struct trun *r, size_t bytes)
{
    bytes = (bytes + 15) & ~(size_t)15;
    struct tchunk *c = r->chunks;
    if (c == NULL || c->own || c->size - c->used < bytes) {
        if (bytes >= CHUNK_OWN) {
            c = chunk_new(r, bytes, true);
        } else {
            size_t size = c == NULL || c->own ? CHUNK_FIRST : c->size * 2;
            c = chunk_new(r, size > CHUNK_MAX ? CHUNK_MAX : size, false);
        }
    }
    void *p = c->data + c->used;
    c->used += bytes;
    return p;
}

void *tmpl_grow(struct trun *r, void *old, size_t old_bytes, size_t bytes)
{
    if (old == NULL)
        return tmpl_alloc(r, bytes);
    size_t old_up = (old_bytes + 15) & ~(size_t)15, up = (bytes + 15) & ~(size_t)15;
    struct tchunk *c = r->chunks;
    if (c != NULL && !c->own && (char *)old + old_up == c->data + c->used &&
        c->size - c->used >= up - old_up) {
        c->used += up - old_up;
        return old;
    }
    void *p = tmpl_alloc(r, bytes);
    memcpy(p, old, old_bytes);
    return p;
}

/* Frees what had a chunk of its own; the rest stays until the end. Only for memory that nothing
 * else points into. */
static void give_back(struct trun *r, void *p, size_t bytes)
{
    if (p == NULL || bytes < CHUNK_OWN)
        return;
    for (struct tchunk **at = &r->chunks; *at != NULL; at = &(*at)->next) {
        struct tchunk *c = *at;
        if (c->own && c->data == (char *)p) {
            *at = c->next;
            r->arena_bytes -= c->size;
            free(c);
            return;
        }
    }
}

void tmpl_free_all(struct trun *r)
{
    for (; r->scratch != NULL; r->scratch = r->scratch->next)
        json_free(r->scratch->root);
    while (r->chunks != NULL) {
        struct tchunk *next = r->chunks->next;
        free(r->chunks);
        r->chunks = next;
    }
}

void tmpl_work(struct trun *r, size_t bytes)
{
    r->steps += 1 + (int64_t)(bytes >> 8);
    if (r->steps > r->steps_max)
        tmpl_raise(r, "takes more than %lld steps", (long long)r->steps_max);
}

void tmpl_enter(struct trun *r)
{
    if (++r->depth > DEPTH_MAX)
        tmpl_raise(r, "recursion is too deep");
}

void tmpl_leave(struct trun *r)
{
    r->depth--;
}

/* Makes room for `len` more bytes of the given trust; the mask appears when the first mixture does.
 */
static void tbuf_room(struct trun *r, struct tbuf *b, size_t len, bool trusted, bool masked)
{
    tmpl_work(r, len);
    if (len > r->output_max || b->len > r->output_max - len)
        tmpl_raise(r, "output is larger than %zu bytes", r->output_max);
    size_t need = b->len + len;
    if (need > b->cap) {
        size_t cap = b->cap * 2 > need ? b->cap * 2 : need;
        cap = cap < 64 ? 64 : cap;
        char *p = tmpl_grow(r, b->p, b->cap, cap);
        if (p != b->p)
            give_back(r, b->p, b->cap);
        b->p = p;
        if (b->mask != NULL) {
            uint8_t *mask = tmpl_grow(r, b->mask, b->cap, cap);
            if (mask != b->mask)
                give_back(r, b->mask, b->cap);
            b->mask = mask;
        }
        b->cap = cap;
    }
    if (b->len == 0)
        b->trusted = trusted;
    if (b->mask == NULL && (masked || b->trusted != trusted)) {
        b->mask = tmpl_alloc(r, b->cap);
        memset(b->mask, b->trusted, b->len);
    }
}

void tbuf_add(struct trun *r, struct tbuf *b, const char *p, size_t len, bool trusted)
{
    if (len == 0)
        return;
    tbuf_room(r, b, len, trusted, false);
    memcpy(b->p + b->len, p, len);
    if (b->mask != NULL)
        memset(b->mask + b->len, trusted, len);
    b->len += len;
}

void tbuf_add_masked(struct trun *r, struct tbuf *b, const char *p, size_t len, const uint8_t *mask)
{
    if (len == 0)
        return;
    tbuf_room(r, b, len, b->trusted, true);
    memcpy(b->p + b->len, p, len);
    memcpy(b->mask + b->len, mask, len);
    b->len += len;
}

void tbuf_add_range(struct trun *r, struct tbuf *b, const struct tval *s, size_t from, size_t to)
{
    if (s->x.mask != NULL)
        tbuf_add_masked(r, b, s->u.s + from, to - from, s->x.mask + from);
    else
        tbuf_add(r, b, s->u.s + from, to - from, s->trusted);
}

void tbuf_add_str(struct trun *r, struct tbuf *b, const struct tval *s)
{
    tbuf_add_range(r, b, s, 0, s->len);
}

void tbuf_puts(struct trun *r, struct tbuf *b, const char *s, bool trusted)
{
    tbuf_add(r, b, s, strlen(s), trusted);
}

struct tval tbuf_value(struct trun *r, struct tbuf *b)
{
    struct tval v = tv_str(b->len > 0 ? b->p : "", b->len, b->len > 0 ? b->trusted : true);
    v.x.mask = b->mask;
    return v;
}
