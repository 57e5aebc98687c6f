/* What the tests of the output parser share: runs a text through it, cut into pieces in some way,
 * and writes down what comes out: "C:" content, "R:" reasoning, "B0:name" (and ":id"), "A:"
 * arguments, "E". Neighbours of one kind are joined, so that it does not show how they were cut.
 * Within a text, what stands between \x01 and \x02 stems from special tokens. */
#ifndef TESTS_ROUTER_OUTPUT_RIG_H
#define TESTS_ROUTER_OUTPUT_RIG_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/rng.h"
#include "router/output/output_parser.h"

struct rig {
    struct buf log;
    char last;
};

static inline void rig_event(void *owner, const struct output_event *ev)
{
    struct rig *r = owner;
    char kind = "CRBAE"[ev->kind];
    if (kind == 'B')
        buf_printf(&r->log, "|B%d:%.*s%s%s", ev->index, (int)ev->len, ev->text,
                   ev->id[0] ? ":" : "", ev->id);
    else if (kind == 'E')
        buf_puts(&r->log, "|E");
    else if (kind != r->last)
        buf_printf(&r->log, "|%c:", kind);
    if (kind != 'B' && kind != 'E')
        buf_append(&r->log, ev->text, ev->len);
    r->last = kind;
}

static inline bool rig_known(void *owner, const char *tool)
{
    (void)owner;
    return strcmp(tool, "unknown") != 0;
}

static inline enum output_type rig_type(void *owner, const char *tool, const char *parameter)
{
    (void)owner;
    (void)tool;
    if (parameter[0] == 's')
        return OUTPUT_TYPE_STRING;
    return parameter[0] == 'n' ? OUTPUT_TYPE_OTHER : OUTPUT_TYPE_UNKNOWN;
}

static const struct output_ops rig_ops = {rig_event, rig_known, rig_type};

/* `most`: pieces have 1 to so many bytes, drawn; 0: as long as they can be. */
static inline struct buf rig_run(struct output_args args, const char *text, size_t most,
                                 uint64_t seed, bool cut)
{
    struct rig r = {0};
    size_t n = strlen(text);
    args.ops = &rig_ops;
    args.owner = &r;
    struct output_parser *p = output_parser_create(&args);
    bool special = false, ok = p != NULL;
    for (size_t i = 0; i < n && ok;) {
        if (text[i] == 1 || text[i] == 2) {
            special = text[i++] == 1;
            continue;
        }
        size_t len = 1, want = most ? 1 + rng_hash(seed, 0, i, 0) % most : n;
        while (len < want && i + len < n && text[i + len] > 2)
            len++;
        while (i + len < n && ((unsigned char)text[i + len] & 0xc0) == 0x80)
            len++;
        ok = output_parser_push(p, (struct output_piece){text + i, len, special});
        i += len;
    }
    ok = ok && output_parser_finish(p, cut);
    output_parser_destroy(p);
    if (!ok)
        buf_puts(&r.log, "|failed");
    if (!r.log.data)
        buf_append(&r.log, "", 0);
    return r.log;
}

#endif
