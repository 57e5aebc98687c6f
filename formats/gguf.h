/* A checked, read-only view of a GGUF file (versions 1 to 3, little-endian), or of all the files of
 * a split one (NAME-00001-of-0000N.gguf).
 *
 * gguf_open() maps the file and checks every count, length, offset, alignment and overlap before it
 * is used: files are hostile input. Nothing is copied but names; strings and arrays of the metadata
 * are read from the map. Which element types can be computed with is the caller's business
 * (dequant.h).
 *
 * Owner: the gguf object owns the maps and all that is reached through it, until gguf_close().
 * Thread: read by any number, opened and closed by one. Like a checkpoint it does not guard against
 * a file that is cut short while it is mapped.
 *
 *     struct gguf_str arch = gguf_string(g, "general.architecture");
 *     const struct gguf_tensor *t = gguf_find_tensor(g, "token_embd.weight");
 */
#ifndef FORMATS_GGUF_H
#define FORMATS_GGUF_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/status.h"
#include "formats/ggml_type.h"
#include "formats/opened_file.h"

#define GGUF_KEYS_MAX 100000
#define GGUF_TENSORS_MAX 1000000
#define GGUF_RANK_MAX 4
#define GGUF_SPLITS_MAX 4096
#define GGUF_NAME_MAX 1024 /* bytes of a tensor's name; keys have 65535 */
#define GGUF_NESTING_MAX 4 /* arrays in arrays */

/* Numbers of the file format. */
enum gguf_type {
    GGUF_U8,
    GGUF_I8,
    GGUF_U16,
    GGUF_I16,
    GGUF_U32,
    GGUF_I32,
    GGUF_F32,
    GGUF_BOOL,
    GGUF_STRING,
    GGUF_ARRAY,
    GGUF_U64,
    GGUF_I64,
    GGUF_F64,
    GGUF_TYPES
};

struct gguf_str {
    const char *s; /* not NUL-terminated; NULL: absent, or of another type */
    size_t len;
};

/* One entry of the metadata. A scalar is an array of one to the item readers. */
struct gguf_value {
    const char *key;
    enum gguf_type type; /* of the entry */
    enum gguf_type item; /* of its items: `type`, unless that is GGUF_ARRAY */
    uint64_t count;
    const uint8_t *data;     /* first item */
    const uint64_t *offsets; /* items that are strings: of each one's bytes, from `data`; count+1 */
    unsigned length_bytes;   /* of the length in front of a string: 4 in version 1, else 8 */
};

struct gguf_tensor {
    const char *name;
    uint64_t shape[GGUF_RANK_MAX]; /* row-major, outermost first (the file has it reversed) */
    int rank;
    enum ggml_type type;
    uint64_t elements, bytes;
    const void *data;
};

struct gguf;

/* The first file of a split; the others must lie beside it. ST_NOT_FOUND, ST_IO, ST_INVALID
 * (malformed), ST_UNSUPPORTED (big-endian, or a version that is unknown); the text names file and
 * place. */
enum status gguf_open(const char *path, struct gguf **out, struct error *err);
/* The same checks over bytes that the caller keeps alive; a split one is refused. */
enum status gguf_open_bytes(const char *label, const void *bytes, size_t len, struct gguf **out,
                            struct error *err);
void gguf_close(struct gguf *g);
void gguf_let_go(const struct gguf *g); /* see weight_source_let_go() */

/* Path of the one GGUF model (split or not) of a folder into `out`. ST_NOT_FOUND: none is there;
 * ST_INVALID: several, or a path that is too long. */
enum status gguf_find_file(const char *dir, char *out, size_t cap, struct error *err);

unsigned gguf_version(const struct gguf *g);
size_t gguf_files(const struct gguf *g);
struct opened_file gguf_file_at(const struct gguf *g, size_t i);
size_t gguf_key_count(const struct gguf *g);
const struct gguf_value *gguf_key_at(const struct gguf *g, size_t i);      /* in order of key */
const struct gguf_value *gguf_find(const struct gguf *g, const char *key); /* NULL: absent */

/* Scalars; what is absent or of another kind gives the fallback. Integers of any width count as
 * integers and as numbers, but a U64 over INT64_MAX as neither. */
int64_t gguf_int(const struct gguf *g, const char *key, int64_t fallback);
double gguf_number(const struct gguf *g, const char *key, double fallback);
bool gguf_bool(const struct gguf *g, const char *key, bool fallback);
struct gguf_str gguf_string(const struct gguf *g, const char *key);

/* Items of an array (or the scalar itself, as item 0). NULL values and indexes past the end give
 * the fallback. */
int64_t gguf_item_int(const struct gguf_value *v, uint64_t i, int64_t fallback);
double gguf_item_number(const struct gguf_value *v, uint64_t i, double fallback);
bool gguf_item_bool(const struct gguf_value *v, uint64_t i, bool fallback);
struct gguf_str gguf_item_string(const struct gguf_value *v, uint64_t i);

size_t gguf_tensor_count(const struct gguf *g);
const struct gguf_tensor *gguf_tensor_at(const struct gguf *g, size_t i); /* in order of name */
const struct gguf_tensor *gguf_find_tensor(const struct gguf *g, const char *name);
uint64_t gguf_data_bytes(const struct gguf *g); /* sum over the tensors */

#endif
