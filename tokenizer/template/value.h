/* Values of a running chat template. Private to template*.c.
 *
 * Everything a render makes lives in its arena and dies with it, so values are plain structs passed
 * by copy. A string carries its provenance: `mask` has one byte per byte of text (1 trusted, 0
 * not), or is NULL when all of it is `trusted`. Containers and numbers carry one flag, used when
 * they are printed.
 */
#ifndef TOKENIZER_TEMPLATE_VALUE_H
#define TOKENIZER_TEMPLATE_VALUE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/json.h"

/* clang-format off */
enum tkind {
    TV_MISSING, /* no value at all: an argument that was not given */
    TV_UNDEF, TV_NONE, TV_BOOL, TV_INT, TV_REAL, TV_STR, TV_SEQ, TV_DICT,
    TV_NAMESPACE, TV_LOOP, TV_MACRO, TV_FUNC, TV_METHOD, TV_JOINER
};
enum tseq_kind {
    SEQ_LIST, SEQ_TUPLE, SEQ_RANGE, SEQ_KEYS, SEQ_VALUES, SEQ_ITEMS,
    SEQ_ITER, /* a generator: gives its items once */
    SEQ_GROUP /* a pair from groupby() */
};
/* clang-format on */
enum tundef { UNDEF_NAME, UNDEF_ATTR, UNDEF_ELEMENT, UNDEF_HINT, UNDEF_UNSAFE };
/* Markup came through |safe or |escape: `+` escapes what it meets. */
enum { STR_PLAIN, STR_MARKUP };

struct trun;
struct tbuf;

struct tval {
    uint8_t kind, tag; /* tag: STR_*, enum tundef */
    bool trusted;
    size_t len; /* TV_STR, TV_UNDEF: bytes of s */
    union {
        bool b;
        int64_t i;
        double f;
        const char *s;
        struct tseq *seq;
        struct tdict *dict;
        struct tloop *loop;
        struct tmacro *macro;
        const struct tbuiltin *func;
        struct tbound *bound;
    } u;
    union {
        const uint8_t *mask; /* TV_STR */
        const char *type;    /* TV_UNDEF: type of what lacks it */
    } x;
};

struct tseq {
    uint8_t kind;
    bool trusted;
    struct tval *v;
    size_t n, cap;
    size_t pos;                /* SEQ_ITER: already consumed */
    struct tlazy *lazy;        /* SEQ_ITER: not worked out yet */
    int64_t start, step, stop; /* SEQ_RANGE: for printing */
};
struct tentry {
    struct tval key, value;
};
struct tdict {
    struct tentry *e;
    size_t n, cap;
    uint32_t *index; /* open addressing, entry + 1; NULL while small */
    size_t index_cap;
    bool trusted;
};
/* value.c: making, reading and comparing values */
struct tval tv_str(const char *s, size_t len, bool trusted);
struct tval tv_cstr(const char *s); /* trusted, static */
struct tval tv_int(int64_t i, bool trusted);
struct tval tv_real(double f, bool trusted);
struct tval tv_bool(bool b);
struct tval tv_none(void);
struct tval tv_undef_hint(const char *text);
struct tval tv_substr(const struct tval *s, size_t from, size_t to);
struct tval tv_copy_str(struct trun *r, const char *s, size_t len, bool trusted);
struct tval tv_seq_new(struct trun *r, enum tseq_kind kind, size_t cap);
void tv_seq_push(struct trun *r, struct tseq *s, struct tval v);
struct tval tv_dict_new(struct trun *r, bool trusted);
void tv_dict_set(struct trun *r, struct tdict *d, struct tval key, struct tval value);
struct tval *tv_dict_get(struct trun *r, const struct tdict *d, const struct tval *key);
struct tval *tv_dict_get_name(const struct tdict *d, const char *name, size_t len);
bool tv_dict_remove(struct trun *r, struct tdict *d, const struct tval *key);
bool tv_hashable(struct trun *r, const struct tval *v);
struct tval tv_from_json(struct trun *r, const json *v, bool roles);
bool tv_truthy(const struct tval *v);
bool tv_is_number(const struct tval *v); /* bool, int, real */
double tv_number(const struct tval *v);
int64_t tv_integer(const struct tval *v); /* bool, int */
bool tv_equal(struct trun *r, const struct tval *a, const struct tval *b);
int tv_compare(struct trun *r, const struct tval *a, const struct tval *b, const char *op);
bool tv_contains(struct trun *r, const struct tval *container, const struct tval *item);
const char *tv_type_name(const struct tval *v); /* as Python calls it: "str", "NoneType" ... */
_Noreturn void tv_fail_undefined(struct trun *r, const struct tval *v);
size_t tv_length(struct trun *r, const struct tval *v);
/* Items of any iterable, in order; consumes a one-time iterator. */
struct tval *tv_iterate(struct trun *r, const struct tval *v, size_t *n);
void tv_force(struct trun *r, struct tseq *s); /* works out a lazy iterator */
int64_t tv_want_int(struct trun *r, const struct tval *v);
bool tv_is(const struct tval *s, const char *text); /* a string equal to text */

/* print.c: str(), repr(), JSON */
void tv_print(struct trun *r, struct tbuf *b, const struct tval *v);
void tv_repr(struct trun *r, struct tbuf *b, const struct tval *v);
struct tval tv_to_str(struct trun *r, const struct tval *v);
size_t tv_format_real(double f, char out[40]);

#endif
