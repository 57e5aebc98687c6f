/* Reading the pieces of a tokenizer.json with checks: each reader says, on one line, which key is
 * wrong and how.
 *
 * A component is an object with a "type"; parse_components() walks it, flattening Sequences
 * (bounded in depth and number), and calls back for each leaf. Thread: the loader's; nothing is
 * kept.
 */
#ifndef TOKENIZER_PARSE_H
#define TOKENIZER_PARSE_H

#include <stdbool.h>
#include <stddef.h>

#include "base/json.h"
#include "base/status.h"
#include "tokenizer/regex.h"

#define COMPONENTS_MAX 32 /* leaves of one Sequence tree */

/* "KEY: expected WHAT, got GOT" */
enum status parse_mismatch(const char *key, const char *expected, const json *got,
                           struct error *err);
enum status parse_bool(const json *obj, const char *key, bool fallback, bool *out,
                       struct error *err);
struct text_ref {
    const char *s; /* NUL-terminated where it comes from JSON, and may hold NULs too */
    size_t len;
};
/* fallback NULL: the key is required. null counts as absent. */
enum status parse_str(const json *obj, const char *key, const char *fallback, struct text_ref *out,
                      struct error *err);
/* Exactly one character. */
enum status parse_char(const json *obj, const char *key, const char *fallback, struct text_ref *out,
                       struct error *err);
/* fallback < 0: required. 0..2^31-1. */
enum status parse_count(const json *obj, const char *key, long fallback, size_t *out,
                        struct error *err);
/* {"String": s} or {"Regex": r} */
enum status parse_pattern(const json *obj, const char *key, struct regex **out, struct error *err);

typedef enum status parse_leaf_fn(void *arg, const char *type, const json *component,
                                  struct error *err);
/* `list` names the key of a Sequence's members. Absent and null have no leaves. Errors are prefixed
 * with the type. */
enum status parse_components(const json *component, const char *list, parse_leaf_fn *leaf,
                             void *arg, struct error *err);

#endif
