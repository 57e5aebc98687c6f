/* One rendering: its arena, limits, scopes and output. Private to template*.c.
 *
 * All memory of a run is in its arena, bounded and freed as a whole. Errors leave by longjmp to
 * template_render() or template_parse() (tmpl_fail, tmpl_raise): nothing in between owns anything
 * else. Every piece of work is charged to `steps`, every recursion to `depth`, every byte written
 * to a string to `output_max`.
 *
 * Thread: a run belongs to one thread; the template that it runs is shared and never written.
 */
#ifndef TOKENIZER_TEMPLATE_RUN_H
#define TOKENIZER_TEMPLATE_RUN_H

#include <setjmp.h>

#include "base/status.h"
#include "tokenizer/template/value.h"

struct tbuf { /* a string under construction */
    char *p;
    uint8_t *mask; /* NULL while uniform */
    size_t len, cap;
    bool trusted;
};
struct tscope {
    struct tscope *parent;
    struct tbinding {
        uint32_t sym;
        struct tval v;
    } * b;
    uint32_t n, cap;
};
struct targs {
    const char *callee;
    struct tval *v;
    size_t n;
    struct tkwarg {
        const char *name;
        size_t len;
        struct tval v;
    } * kw;
    size_t n_kw;
};

/* A filter that Python writes as a generator: it runs, and may fail, only when its items are first
 * asked for. */
struct tlazy {
    struct tval (*fn)(struct trun *r, const struct tval *in, struct targs *a);
    struct tval in;
    struct targs *a;
};

struct trun {
    const struct chat_template *t;
    struct tchunk *chunks;
    size_t arena_bytes, arena_max;
    jmp_buf fail;
    struct error *err;
    enum status status;
    int64_t steps, steps_max;
    size_t output_max;
    int depth, calls;
    uint32_t line;
    struct tscope *scope;
    struct tbuf *out;
    uint8_t flow; /* FLOW_*: a break or continue on its way to its loop */
    bool mutation;
    int64_t now_unix_s;
    struct tscope *global; /* outermost scope: what the template sets at top level */
    const json *variables;
    struct tval *cache; /* per symbol: variables already converted */
    const char *bos, *eos;
    struct tscratch { /* trees that values point into; freed when the run ends */
        struct tscratch *next;
        json *root;
    } * scratch;
};
enum { FLOW_NONE, FLOW_BREAK, FLOW_CONTINUE };

/* memory.c: arena, failure, strings under construction */
_Noreturn void tmpl_fail(struct trun *r, enum status st, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
/* ST_INVALID with the line that runs in front: "chat template, line 3: TypeError: ..." */
_Noreturn void tmpl_raise(struct trun *r, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));
void *tmpl_alloc(struct trun *r, size_t bytes);
void *tmpl_grow(struct trun *r, void *old, size_t old_bytes, size_t bytes);
void tmpl_free_all(struct trun *r);
void tmpl_work(struct trun *r, size_t bytes); /* charges steps for touching that many bytes */
void tmpl_enter(struct trun *r);              /* one level deeper, or fail */
void tmpl_leave(struct trun *r);
void tbuf_add(struct trun *r, struct tbuf *b, const char *p, size_t len, bool trusted);
void tbuf_add_masked(struct trun *r, struct tbuf *b, const char *p, size_t len,
                     const uint8_t *mask);
void tbuf_add_str(struct trun *r, struct tbuf *b, const struct tval *s);
void tbuf_add_range(struct trun *r, struct tbuf *b, const struct tval *s, size_t from, size_t to);
void tbuf_puts(struct trun *r, struct tbuf *b, const char *s, bool trusted);
struct tval tbuf_value(struct trun *r, struct tbuf *b);

#endif
