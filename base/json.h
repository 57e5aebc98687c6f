/* JSON in and out, over jansson, which is confined to json.c. The reader is strict (RFC 8259, UTF-8
 * checked, NUL allowed inside strings, duplicate keys refused, depth bounded) and gives a read-only
 * tree; the writer appends to a struct buf. A `const json *` may be NULL anywhere: NULL reads as
 * absent.
 *
 * Owner: json_read() gives a tree to be freed with json_free(); everything reached from it lives as
 * long. Thread: a tree may be read by many threads, freed by one.
 */
#ifndef BASE_JSON_H
#define BASE_JSON_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/status.h"

typedef struct json_t json;
enum json_kind {
    JSON_ABSENT,
    JSON_NULL_,
    JSON_BOOL,
    JSON_INT,
    JSON_REAL,
    JSON_STR,
    JSON_ARR,
    JSON_OBJ
};

/* Errors: ST_INVALID with line, column and reason. An integer that no int64_t holds is read as
 * JSON_REAL. */
enum status json_read(const char *text, size_t len, json **out, struct error *err);
enum status json_read_file(const char *path, size_t max_bytes, json **out, struct error *err);
/* The same with bounds of the caller's: a tree takes up to 100 times its text, so text from a
 * client gets a bound on the (estimated) memory of the tree, checked before anything is allocated.
 * 0: the defaults, 512 and 1 GiB. */
struct json_limits {
    int depth;
    size_t memory_bytes;
    size_t members; /* of all objects together; each costs time */
};
enum status json_read_limited(const char *text, size_t len, struct json_limits limits, json **out,
                              struct error *err);
void json_free(json *root);

enum json_kind json_kind_of(const json *v);
const char *json_kind_name(enum json_kind kind);
bool json_as_bool(const json *v, bool fallback);
int64_t json_as_int(const json *v, int64_t fallback);         /* JSON_INT only; else fallback */
double json_as_number(const json *v, double fallback);        /* JSON_INT or JSON_REAL */
const char *json_as_str(const json *v, const char *fallback); /* NUL-terminated */
size_t json_str_len(const json *v);                           /* bytes; may contain NULs */
size_t json_count(const json *v);                             /* array or object; else 0 */
const json *json_at(const json *arr, size_t i);
const json *json_get(const json *obj, const char *key);
/* Members in document order: for (it = json_first(o); it; it = json_next(o, it)) */
void *json_first(const json *obj);
void *json_next(const json *obj, void *it);
const char *json_iter_key(void *it);
const json *json_iter_value(void *it);
/* Serialises back, compact; key order kept. */
void json_dump(const json *v, struct buf *out);

/* Writing: `jw` keeps commas right. Strings are escaped; invalid UTF-8 becomes U+FFFD; non-finite
 * numbers null. */
struct jw {
    struct buf *out;
    uint64_t first; /* a bit per depth: nothing written yet at this level */
    int depth;
    bool after_key;
};
struct jw jw_begin(struct buf *out);
void jw_obj(struct jw *w);
void jw_end_obj(struct jw *w);
void jw_arr(struct jw *w);
void jw_end_arr(struct jw *w);
void jw_key(struct jw *w, const char *key);
void jw_str(struct jw *w, const char *s);
void jw_strn(struct jw *w, const char *s, size_t len);
void jw_int(struct jw *w, int64_t v);
void jw_uint(struct jw *w, uint64_t v);
void jw_real(struct jw *w, double v); /* shortest form that reads back (%.17g at most) */
void jw_bool(struct jw *w, bool v);
void jw_null(struct jw *w);
void jw_raw(struct jw *w, const char *json_text);
void jw_json(struct jw *w, const json *v);

#endif
