/* One GGUF file: magic, version, counts, metadata, tensor infos, then aligned tensor data. A cursor
 * that cannot pass the end reads it; lengths are compared with what is left before anything is
 * allocated for them. */
#include "formats/gguf_file.h"

#include <stdlib.h>
#include <string.h>

#include "base/utf8.h"

#define ALIGNMENT_DEFAULT 32
#define ALIGNMENT_MAX (1u << 20)
#define KEY_MAX 65535

struct cursor {
    const char *label;
    const uint8_t *begin, *at, *end;
    struct gguf_file *file;
    struct error *err;
};

static size_t left(const struct cursor *c)
{
    return (size_t)(c->end - c->at);
}

static enum status cut_short(const struct cursor *c, const char *what)
{
    return err_set(c->err, ST_INVALID, "%s: the file ends inside %s (byte %zu)", c->label, what,
                   (size_t)(c->at - c->begin));
}

static enum status read_uint(struct cursor *c, unsigned bytes, const char *what, uint64_t *out)
{
    if (left(c) < bytes)
        return cut_short(c, what);
    *out = gguf_load(c->at, bytes);
    c->at += bytes;
    return ST_OK;
}

/* Counts and lengths have 32 bits in version 1. */
static unsigned width(const struct cursor *c)
{
    return c->file->version == 1 ? 4 : 8;
}

static void *keep(struct cursor *c, size_t bytes)
{
    struct gguf_file *f = c->file;
    if (f->n_chunks == f->cap_chunks) {
        size_t cap = f->cap_chunks ? 2 * f->cap_chunks : 64;
        char **chunks = realloc(f->chunks, cap * sizeof *chunks);
        if (!chunks)
            return NULL;
        f->chunks = chunks;
        f->cap_chunks = cap;
    }
    char *p = malloc(bytes ? bytes : 1);
    if (p)
        f->chunks[f->n_chunks++] = p;
    return p;
}

/* A name: bounded, UTF-8, nothing that would upset a log line or a C string. */
static enum status read_name(struct cursor *c, size_t max, const char *what, const char **out)
{
    uint64_t len = 0;
    enum status st = read_uint(c, width(c), what, &len);
    if (st)
        return st;
    if (len > max)
        return err_set(c->err, ST_INVALID, "%s: %s of %llu bytes, at most %zu", c->label, what,
                       (unsigned long long)len, max);
    if (len > left(c))
        return cut_short(c, what);
    bool ok = utf8_valid((const char *)c->at, (size_t)len);
    for (uint64_t i = 0; i < len && ok; i++)
        ok = c->at[i] >= 0x20 && c->at[i] != 0x7f;
    if (!ok)
        return err_set(c->err, ST_INVALID, "%s: %s at byte %zu is not plain text", c->label, what,
                       (size_t)(c->at - c->begin));
    char *name = keep(c, (size_t)len + 1);
    if (!name)
        return err_set(c->err, ST_NO_MEMORY, "%s: no memory for names", c->label);
    memcpy(name, c->at, (size_t)len);
    name[len] = 0;
    c->at += len;
    *out = name;
    return ST_OK;
}

static unsigned scalar_bytes(enum gguf_type type)
{
    static const uint8_t bytes[GGUF_TYPES] = {
        [GGUF_U8] = 1,  [GGUF_I8] = 1,  [GGUF_U16] = 2, [GGUF_I16] = 2,
        [GGUF_U32] = 4, [GGUF_I32] = 4, [GGUF_F32] = 4, [GGUF_BOOL] = 1,
        [GGUF_U64] = 8, [GGUF_I64] = 8, [GGUF_F64] = 8};
    return type < GGUF_TYPES ? bytes[type] : 0;
}

static enum status bad_value(const struct cursor *c, const struct gguf_value *v, const char *what)
{
    return err_set(c->err, ST_INVALID, "%s: %.120s: %s", c->label, v->key, what);
}

/* Strings one after another; where each one's bytes are is remembered. */
static enum status read_strings(struct cursor *c, struct gguf_value *v)
{
    v->length_bytes = width(c);
    if (v->count > left(c) / width(c))
        return bad_value(c, v, "more strings than the file has room for");
    uint64_t *offsets = keep(c, (size_t)(v->count + 1) * sizeof *offsets);
    if (!offsets)
        return err_set(c->err, ST_NO_MEMORY, "%s: %.120s: no memory", c->label, v->key);
    for (uint64_t i = 0; i < v->count; i++) {
        uint64_t len = 0;
        enum status st = read_uint(c, width(c), "a string", &len);
        if (st)
            return st;
        if (len > left(c))
            return bad_value(c, v, "a string is longer than the file");
        offsets[i] = (uint64_t)(c->at - v->data);
        c->at += len;
    }
    offsets[v->count] = (uint64_t)(c->at - v->data) + width(c); /* as if one more followed */
    v->offsets = offsets;
    return ST_OK;
}

static enum status skip_array(struct cursor *c, struct gguf_value *v, int depth);

/* `count` items of `item` without a record of them: what is inside nested arrays. */
static enum status skip_items(struct cursor *c, struct gguf_value *v, enum gguf_type item,
                              uint64_t count, int depth)
{
    unsigned bytes = scalar_bytes(item);
    if (bytes) {
        if (count > left(c) / bytes)
            return bad_value(c, v, "more items than the file has room for");
        c->at += count * bytes;
        return ST_OK;
    }
    if (count > left(c) / width(c))
        return bad_value(c, v, "more items than the file has room for");
    enum status st = ST_OK;
    for (uint64_t i = 0; i < count && !st; i++) {
        uint64_t len = 0;
        if (item == GGUF_ARRAY) {
            st = skip_array(c, v, depth + 1);
            continue;
        }
        st = read_uint(c, width(c), "a string", &len);
        if (!st && len > left(c))
            st = bad_value(c, v, "a string is longer than the file");
        if (!st)
            c->at += len;
    }
    return st;
}

static enum status read_array_head(struct cursor *c, struct gguf_value *v, enum gguf_type *item,
                                   uint64_t *count)
{
    uint64_t type = 0;
    enum status st = read_uint(c, 4, "the type of an array", &type);
    if (!st && type >= GGUF_TYPES)
        st = err_set(c->err, ST_INVALID, "%s: %.120s: array of unknown type %llu", c->label, v->key,
                     (unsigned long long)type);
    if (!st)
        st = read_uint(c, width(c), "the length of an array", count);
    if (!st)
        *item = (enum gguf_type)type;
    return st;
}

static enum status skip_array(struct cursor *c, struct gguf_value *v, int depth)
{
    enum gguf_type item = GGUF_U8;
    uint64_t count = 0;
    if (depth > GGUF_NESTING_MAX)
        return bad_value(c, v, "arrays nested too deep");
    enum status st = read_array_head(c, v, &item, &count);
    return st ? st : skip_items(c, v, item, count, depth);
}

static enum status read_value(struct cursor *c, struct gguf_value *v)
{
    uint64_t type = 0;
    enum status st = read_name(c, KEY_MAX, "a key", &v->key);
    if (!st)
        st = read_uint(c, 4, "the type of a value", &type);
    if (st)
        return st;
    if (type >= GGUF_TYPES)
        return err_set(c->err, ST_INVALID, "%s: %.120s: unknown value type %llu", c->label, v->key,
                       (unsigned long long)type);
    v->type = v->item = (enum gguf_type)type;
    v->count = 1;
    if (v->type == GGUF_ARRAY) {
        st = read_array_head(c, v, &v->item, &v->count);
        if (st)
            return st;
    }
    v->data = c->at;
    if (v->item == GGUF_STRING)
        return read_strings(c, v);
    st = skip_items(c, v, v->item, v->count, 1);
    if (!st && v->item == GGUF_BOOL)
        for (uint64_t i = 0; i < v->count && !st; i++)
            if (v->data[i] > 1)
                st = bad_value(c, v, "a bool that is neither 0 nor 1");
    return st;
}

static int compare_keys(const void *a, const void *b)
{
    return strcmp(((const struct gguf_value *)a)->key, ((const struct gguf_value *)b)->key);
}

static int compare_names(const void *a, const void *b)
{
    return strcmp(((const struct gguf_tensor *)a)->name, ((const struct gguf_tensor *)b)->name);
}

const struct gguf_value *gguf_file_find(const struct gguf_file *f, const char *key)
{
    struct gguf_value want = {.key = key};
    return f->n_values ? bsearch(&want, f->values, f->n_values, sizeof want, compare_keys) : NULL;
}

const struct gguf_tensor *gguf_search_tensor(const struct gguf_tensor *tensors, size_t n,
                                             const char *name)
{
    struct gguf_tensor want = {.name = name};
    return n ? bsearch(&want, tensors, n, sizeof want, compare_names) : NULL;
}

static enum status read_values(struct cursor *c, uint64_t count)
{
    struct gguf_file *f = c->file;
    f->values = calloc((size_t)count + 1, sizeof *f->values);
    if (!f->values)
        return err_set(c->err, ST_NO_MEMORY, "%s: no memory for %llu keys", c->label,
                       (unsigned long long)count);
    while (f->n_values < count) {
        enum status st = read_value(c, &f->values[f->n_values]);
        if (st)
            return st;
        f->n_values++;
    }
    if (count)
        qsort(f->values, f->n_values, sizeof *f->values, compare_keys);
    for (size_t i = 1; i < f->n_values; i++)
        if (!strcmp(f->values[i - 1].key, f->values[i].key))
            return bad_value(c, &f->values[i], "the key is there twice");
    return ST_OK;
}

static enum status read_alignment(struct cursor *c)
{
    const struct gguf_value *v = gguf_file_find(c->file, "general.alignment");
    c->file->alignment = ALIGNMENT_DEFAULT;
    if (!v)
        return ST_OK;
    int64_t a = gguf_item_int(v, 0, -1);
    if (v->type == GGUF_ARRAY || a < 1 || a > ALIGNMENT_MAX || (a & (a - 1)))
        return bad_value(c, v, "expected a power of two of at most 1 MiB");
    c->file->alignment = (uint64_t)a;
    return ST_OK;
}

static enum status bad_tensor(const struct cursor *c, const struct gguf_tensor *t, const char *what)
{
    return err_set(c->err, ST_INVALID, "%s: tensor %.120s: %s", c->label, t->name, what);
}

static enum status read_shape(struct cursor *c, struct gguf_tensor *t)
{
    uint64_t rank = 0, dim = 0;
    enum status st = read_uint(c, 4, "a tensor's rank", &rank);
    if (st)
        return st;
    if (rank > GGUF_RANK_MAX)
        return err_set(c->err, ST_INVALID, "%s: tensor %.120s: %llu dimensions, at most %d",
                       c->label, t->name, (unsigned long long)rank, GGUF_RANK_MAX);
    t->rank = (int)rank;
    t->elements = 1;
    for (int i = t->rank; i-- > 0;) {
        st = read_uint(c, width(c), "a tensor's shape", &dim);
        if (st)
            return st;
        t->shape[i] = dim;
        if (__builtin_mul_overflow(t->elements, dim, &t->elements) || t->elements > INT64_MAX)
            return bad_tensor(c, t, "the number of elements overflows");
    }
    return ST_OK;
}

/* Whether the offset is within the data is for place_tensors() to say. */
static enum status read_tensor(struct cursor *c, struct gguf_tensor *t, uint64_t *offset)
{
    uint64_t type = 0;
    enum status st = read_name(c, GGUF_NAME_MAX, "a tensor's name", &t->name);
    if (!st)
        st = read_shape(c, t);
    if (!st)
        st = read_uint(c, 4, "a tensor's type", &type);
    if (!st)
        st = read_uint(c, 8, "a tensor's offset", offset);
    if (st)
        return st;
    struct ggml_block block =
        ggml_type_block(type < GGML_TYPES ? (enum ggml_type)type : GGML_TYPES);
    if (!block.elements)
        return err_set(c->err, ST_INVALID, "%s: tensor %.120s: unknown element type %llu", c->label,
                       t->name, (unsigned long long)type);
    t->type = (enum ggml_type)type;
    uint64_t row = t->rank ? t->shape[t->rank - 1] : 1;
    if (row % block.elements)
        return err_set(c->err, ST_INVALID,
                       "%s: tensor %.120s: rows of %llu elements are not whole blocks of %s",
                       c->label, t->name, (unsigned long long)row, block.name);
    if (__builtin_mul_overflow(t->elements / block.elements, (uint64_t)block.bytes, &t->bytes))
        return bad_tensor(c, t, "the number of bytes overflows");
    if (*offset % c->file->alignment)
        return err_set(c->err, ST_INVALID,
                       "%s: tensor %.120s: offset %llu is not a multiple of the alignment %llu",
                       c->label, t->name, (unsigned long long)*offset,
                       (unsigned long long)c->file->alignment);
    return ST_OK;
}

static int compare_places(const void *a, const void *b)
{
    const struct gguf_tensor *x = a, *y = b;
    if (x->data != y->data)
        return (const char *)x->data < (const char *)y->data ? -1 : 1;
    return x->bytes < y->bytes ? -1 : x->bytes > y->bytes; /* empty ones first */
}

/* Offsets to addresses, within the data and without overlaps; tensors end sorted by name. */
static enum status place_tensors(struct cursor *c, const uint64_t *offsets)
{
    struct gguf_file *f = c->file;
    uint64_t start = (uint64_t)(c->at - c->begin);
    start = (start + f->alignment - 1) / f->alignment * f->alignment;
    uint64_t room = start < f->len ? f->len - start : 0;
    for (size_t i = 0; i < f->n_tensors; i++) {
        struct gguf_tensor *t = &f->tensors[i];
        if (t->bytes > room || offsets[i] > room - t->bytes)
            return err_set(
                c->err, ST_INVALID,
                "%s: tensor %.120s: %llu bytes at offset %llu are past the %llu bytes of data",
                c->label, t->name, (unsigned long long)t->bytes, (unsigned long long)offsets[i],
                (unsigned long long)room);
        /* an empty tensor may stand where the file ends, data or no data */
        t->data = t->bytes ? f->bytes + start + offsets[i] : f->bytes;
    }
    if (f->n_tensors)
        qsort(f->tensors, f->n_tensors, sizeof *f->tensors, compare_places);
    for (size_t i = 1; i < f->n_tensors; i++) {
        const struct gguf_tensor *before = &f->tensors[i - 1];
        if (before->bytes &&
            (const uint8_t *)f->tensors[i].data < (const uint8_t *)before->data + before->bytes)
            return err_set(c->err, ST_INVALID, "%s: tensors %.120s and %.120s overlap", c->label,
                           before->name, f->tensors[i].name);
    }
    if (f->n_tensors)
        qsort(f->tensors, f->n_tensors, sizeof *f->tensors, compare_names);
    for (size_t i = 1; i < f->n_tensors; i++)
        if (!strcmp(f->tensors[i - 1].name, f->tensors[i].name))
            return bad_tensor(c, &f->tensors[i], "is there twice");
    return ST_OK;
}

static enum status read_tensors(struct cursor *c, uint64_t count)
{
    struct gguf_file *f = c->file;
    uint64_t *offsets = calloc((size_t)count + 1, sizeof *offsets);
    f->tensors = calloc((size_t)count + 1, sizeof *f->tensors);
    enum status st = ST_OK;
    if (!offsets || !f->tensors)
        st = err_set(c->err, ST_NO_MEMORY, "%s: no memory for %llu tensors", c->label,
                     (unsigned long long)count);
    while (!st && f->n_tensors < count) {
        st = read_tensor(c, &f->tensors[f->n_tensors], &offsets[f->n_tensors]);
        f->n_tensors += !st;
    }
    if (!st)
        st = place_tensors(c, offsets);
    free(offsets);
    return st;
}

static enum status read_head(struct cursor *c, uint64_t *tensors, uint64_t *keys)
{
    uint64_t version = 0;
    if (left(c) < 8 || memcmp(c->at, "GGUF", 4))
        return err_set(c->err, ST_INVALID, "%s: not a GGUF file", c->label);
    c->at += 4;
    enum status st = read_uint(c, 4, "the version", &version);
    if (st)
        return st;
    if (version && !(version & 0xffff))
        return err_set(c->err, ST_UNSUPPORTED, "%s: a big-endian GGUF file", c->label);
    if (version < 1 || version > 3)
        return err_set(c->err, ST_UNSUPPORTED, "%s: GGUF version %llu; 1 to 3 are supported",
                       c->label, (unsigned long long)version);
    c->file->version = (unsigned)version;
    st = read_uint(c, width(c), "the counts", tensors);
    if (!st)
        st = read_uint(c, width(c), "the counts", keys);
    if (!st && (*tensors > GGUF_TENSORS_MAX || *keys > GGUF_KEYS_MAX))
        st = err_set(c->err, ST_INVALID, "%s: %llu tensors and %llu keys, at most %d and %d",
                     c->label, (unsigned long long)*tensors, (unsigned long long)*keys,
                     GGUF_TENSORS_MAX, GGUF_KEYS_MAX);
    /* the smallest entries there are: an empty key with one byte, a scalar with an empty name */
    if (!st && (*keys > left(c) / (width(c) + 5) || *tensors > left(c) / (width(c) + 16)))
        st = err_set(c->err, ST_INVALID, "%s: %llu tensors and %llu keys do not fit the file",
                     c->label, (unsigned long long)*tensors, (unsigned long long)*keys);
    return st;
}

enum status gguf_file_parse(const char *label, const void *bytes, size_t len, struct gguf_file *f,
                            struct error *err)
{
    *f = (struct gguf_file){.bytes = bytes, .len = len};
    struct cursor c = {label, bytes, bytes, f->bytes + len, f, err};
    uint64_t tensors = 0, keys = 0;
    enum status st = read_head(&c, &tensors, &keys);
    if (!st)
        st = read_values(&c, keys);
    if (!st)
        st = read_alignment(&c);
    if (!st)
        st = read_tensors(&c, tensors);
    if (st)
        gguf_file_fini(f);
    return st;
}

enum status gguf_file_open(const char *path, struct gguf_file *f, struct error *err)
{
    struct file_map map;
    *f = (struct gguf_file){0};
    enum status st = file_map_open(path, path, &map, err);
    if (!st)
        st = gguf_file_parse(path, map.bytes, map.len, f, err);
    if (st)
        file_map_close(&map);
    else
        f->map = map;
    return st;
}

void gguf_file_fini(struct gguf_file *f)
{
    file_map_close(&f->map);
    for (size_t i = 0; i < f->n_chunks; i++)
        free(f->chunks[i]);
    free(f->chunks);
    free(f->values);
    free(f->tensors);
    *f = (struct gguf_file){0};
}
