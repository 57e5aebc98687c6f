/* One safetensors file: 8 bytes of header length, the JSON header, the data. Checks follow the
 * reference implementation: the tensors, in order of offset, must tile the data exactly. */
#include "formats/safetensors_file.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"

#define METADATA_KEY "__metadata__"

static const struct {
    const char *name;
    unsigned bits;
} types[TENSOR_TYPES] = {
    [TENSOR_BOOL] = {"BOOL", 8},
    [TENSOR_F4] = {"F4", 4},
    [TENSOR_F6_E2M3] = {"F6_E2M3", 6},
    [TENSOR_F6_E3M2] = {"F6_E3M2", 6},
    [TENSOR_U8] = {"U8", 8},
    [TENSOR_I8] = {"I8", 8},
    [TENSOR_F8_E5M2] = {"F8_E5M2", 8},
    [TENSOR_F8_E4M3] = {"F8_E4M3", 8},
    [TENSOR_F8_E8M0] = {"F8_E8M0", 8},
    [TENSOR_F8_E4M3FNUZ] = {"F8_E4M3FNUZ", 8},
    [TENSOR_F8_E5M2FNUZ] = {"F8_E5M2FNUZ", 8},
    [TENSOR_I16] = {"I16", 16},
    [TENSOR_U16] = {"U16", 16},
    [TENSOR_F16] = {"F16", 16},
    [TENSOR_BF16] = {"BF16", 16},
    [TENSOR_I32] = {"I32", 32},
    [TENSOR_U32] = {"U32", 32},
    [TENSOR_F32] = {"F32", 32},
    [TENSOR_C64] = {"C64", 64},
    [TENSOR_F64] = {"F64", 64},
    [TENSOR_I64] = {"I64", 64},
    [TENSOR_U64] = {"U64", 64},
};

const char *tensor_type_name(enum tensor_type type)
{
    return type < TENSOR_TYPES ? types[type].name : "?";
}

unsigned tensor_type_bits(enum tensor_type type)
{
    return type < TENSOR_TYPES ? types[type].bits : 0;
}

const char *tensor_shape_text(const struct tensor *t, char *out, size_t cap)
{
    int n = snprintf(out, cap, "[");
    for (int i = 0; i < t->rank && n > 0 && (size_t)n < cap; i++)
        n += snprintf(out + n, cap - (size_t)n, "%s%llu", i ? ", " : "",
                      (unsigned long long)t->shape[i]);
    if (n > 0 && (size_t)n < cap)
        snprintf(out + n, cap - (size_t)n, "]");
    return out;
}

static int compare_names(const void *a, const void *b)
{
    return strcmp(((const struct tensor *)a)->name, ((const struct tensor *)b)->name);
}

const struct tensor *safetensors_search(const struct tensor *tensors, size_t count,
                                        const char *name)
{
    struct tensor key = {.name = name};
    return count ? bsearch(&key, tensors, count, sizeof *tensors, compare_names) : NULL;
}

/* What is being filled while the header is read. */
struct header {
    const char *label;
    const unsigned char *data; /* first byte after the header */
    uint64_t data_bytes;
    struct safetensors_file *file;
    size_t shapes_used, names_used;
    struct error *err;
};

static enum status check_metadata(const struct header *h, const json *value)
{
    enum json_kind kind = json_kind_of(value);
    if (kind == JSON_NULL_)
        return ST_OK;
    if (kind != JSON_OBJ)
        return err_set(h->err, ST_INVALID, "%s: " METADATA_KEY ": expected an object, got %s",
                       h->label, json_kind_name(kind));
    for (void *it = json_first(value); it; it = json_next(value, it)) {
        kind = json_kind_of(json_iter_value(it));
        if (kind != JSON_STR)
            return err_set(h->err, ST_INVALID,
                           "%s: " METADATA_KEY ": %.80s: expected a string, got %s", h->label,
                           json_iter_key(it), json_kind_name(kind));
    }
    return ST_OK;
}

static enum status read_type(const struct header *h, const json *value, struct tensor *t)
{
    const char *name = json_as_str(value, NULL);
    if (!name)
        return err_set(h->err, ST_INVALID, "%s: tensor %.120s: dtype: expected a string, got %s",
                       h->label, t->name, json_kind_name(json_kind_of(value)));
    for (int i = 0; i < TENSOR_TYPES; i++) {
        if (strcmp(name, types[i].name) == 0) {
            t->type = (enum tensor_type)i;
            return ST_OK;
        }
    }
    return err_set(h->err, ST_INVALID,
                   "%s: tensor %.120s: dtype: %.40s is not a type of the format", h->label, t->name,
                   name);
}

static enum status read_shape(struct header *h, const json *value, struct tensor *t)
{
    if (json_kind_of(value) != JSON_ARR)
        return err_set(h->err, ST_INVALID, "%s: tensor %.120s: shape: expected an array, got %s",
                       h->label, t->name, json_kind_name(json_kind_of(value)));
    size_t rank = json_count(value);
    if (rank > SAFETENSORS_RANK_MAX)
        return err_set(h->err, ST_INVALID, "%s: tensor %.120s: shape: %zu dimensions, at most %d",
                       h->label, t->name, rank, SAFETENSORS_RANK_MAX);
    uint64_t *shape = h->file->shapes + h->shapes_used, elements = 1;
    for (size_t i = 0; i < rank; i++) {
        const json *v = json_at(value, i);
        int64_t dim = json_as_int(v, -1);
        if (json_kind_of(v) != JSON_INT || dim < 0)
            return err_set(h->err, ST_INVALID,
                           "%s: tensor %.120s: shape[%zu]: expected an integer of at least 0",
                           h->label, t->name, i);
        shape[i] = (uint64_t)dim;
        if (__builtin_mul_overflow(elements, (uint64_t)dim, &elements))
            return err_set(h->err, ST_INVALID,
                           "%s: tensor %.120s: shape: the number of elements overflows", h->label,
                           t->name);
    }
    h->shapes_used += rank;
    t->shape = shape;
    t->rank = (int)rank;
    t->elements = elements;
    return ST_OK;
}

static enum status read_extent(const struct header *h, const json *value, struct tensor *t)
{
    const json *first = json_at(value, 0), *second = json_at(value, 1);
    int64_t begin = json_as_int(first, -1), end = json_as_int(second, -1);
    if (json_kind_of(value) != JSON_ARR || json_count(value) != 2 || begin < 0 || end < begin)
        return err_set(
            h->err, ST_INVALID,
            "%s: tensor %.120s: data_offsets: expected [begin, end] with 0 <= begin <= end",
            h->label, t->name);
    if ((uint64_t)end > h->data_bytes)
        return err_set(
            h->err, ST_INVALID,
            "%s: tensor %.120s: data_offsets: end %lld is past the file's %llu data bytes",
            h->label, t->name, (long long)end, (unsigned long long)h->data_bytes);
    uint64_t bits;
    if (__builtin_mul_overflow(t->elements, (uint64_t)types[t->type].bits, &bits) ||
        bits % 8 != 0 || bits / 8 != (uint64_t)(end - begin)) {
        char shape[128];
        return err_set(h->err, ST_INVALID,
                       "%s: tensor %.120s: data_offsets: %lld bytes do not hold %s of shape %s",
                       h->label, t->name, (long long)(end - begin), types[t->type].name,
                       tensor_shape_text(t, shape, sizeof shape));
    }
    t->data = h->data + begin;
    t->bytes = (uint64_t)(end - begin);
    return ST_OK;
}

static enum status read_tensor(struct header *h, const char *name, const json *value)
{
    struct tensor *t = &h->file->tensors[h->file->count];
    size_t name_bytes = strlen(name) + 1;
    t->name = memcpy(h->file->names + h->names_used, name, name_bytes);
    h->names_used += name_bytes;
    if (json_kind_of(value) != JSON_OBJ)
        return err_set(h->err, ST_INVALID, "%s: tensor %.120s: expected an object, got %s",
                       h->label, name, json_kind_name(json_kind_of(value)));
    enum status st = read_type(h, json_get(value, "dtype"), t);
    if (!st)
        st = read_shape(h, json_get(value, "shape"), t);
    if (!st)
        st = read_extent(h, json_get(value, "data_offsets"), t);
    if (!st)
        h->file->count++;
    return st;
}

static int compare_offsets(const void *a, const void *b)
{
    const struct tensor *x = a, *y = b;
    if (x->data != y->data)
        return (const char *)x->data < (const char *)y->data ? -1 : 1;
    return x->bytes < y->bytes ? -1 : x->bytes > y->bytes; /* empty ones first */
}

/* No holes, no overlaps, all of the data covered. Leaves the tensors sorted by name. */
static enum status check_tiling(const struct header *h)
{
    struct safetensors_file *f = h->file;
    enum status st = ST_OK;
    if (f->count)
        qsort(f->tensors, f->count, sizeof *f->tensors, compare_offsets);
    const unsigned char *at = h->data;
    for (size_t i = 0; i < f->count && !st; i++) {
        const struct tensor *t = &f->tensors[i];
        if ((const unsigned char *)t->data != at)
            st = err_set(h->err, ST_INVALID,
                         "%s: tensor %.120s: data_offsets leave a hole or overlap", h->label,
                         t->name);
        at = (const unsigned char *)t->data + t->bytes;
    }
    if (!st && at != h->data + h->data_bytes)
        st = err_set(h->err, ST_INVALID, "%s: %llu bytes of data belong to no tensor", h->label,
                     (unsigned long long)(h->data + h->data_bytes - at));
    if (f->count)
        qsort(f->tensors, f->count, sizeof *f->tensors, compare_names);
    return st;
}

/* Counts first, so that names and shapes each take one allocation. */
static enum status allocate_tables(struct header *h, const json *root)
{
    size_t count = json_count(root), dims = 0, name_bytes = 0;
    if (count > SAFETENSORS_TENSORS_MAX + 1)
        return err_set(h->err, ST_INVALID, "%s: %zu tensors, at most %d", h->label, count,
                       SAFETENSORS_TENSORS_MAX);
    for (void *it = json_first(root); it; it = json_next(root, it)) {
        size_t rank = json_count(json_get(json_iter_value(it), "shape"));
        dims += rank <= SAFETENSORS_RANK_MAX ? rank : 0;
        name_bytes += strlen(json_iter_key(it)) + 1;
    }
    h->file->tensors = calloc(count + 1, sizeof *h->file->tensors);
    h->file->shapes = calloc(dims + 1, sizeof *h->file->shapes);
    h->file->names = malloc(name_bytes + 1);
    if (!h->file->tensors || !h->file->shapes || !h->file->names)
        return err_set(h->err, ST_NO_MEMORY, "%s: no memory for %zu tensors", h->label, count);
    return ST_OK;
}

static enum status read_members(struct header *h, const json *root)
{
    if (json_kind_of(root) != JSON_OBJ)
        return err_set(h->err, ST_INVALID, "%s: header: expected a JSON object", h->label);
    enum status st = allocate_tables(h, root);
    for (void *it = json_first(root); it && !st; it = json_next(root, it)) {
        if (strcmp(json_iter_key(it), METADATA_KEY) == 0)
            st = check_metadata(h, json_iter_value(it));
        else
            st = read_tensor(h, json_iter_key(it), json_iter_value(it));
    }
    return st ? st : check_tiling(h);
}

enum status safetensors_file_parse(const char *label, const void *bytes, size_t len,
                                   struct safetensors_file *f, struct error *err)
{
    const unsigned char *p = bytes;
    *f = (struct safetensors_file){.bytes = p, .len = len};
    if (len < 8)
        return err_set(err, ST_INVALID, "%s: %zu bytes are too short for a header", label, len);
    uint64_t header_bytes = 0;
    for (int i = 7; i >= 0; i--)
        header_bytes = header_bytes << 8 | p[i];
    if (header_bytes > SAFETENSORS_HEADER_MAX_BYTES)
        return err_set(err, ST_INVALID, "%s: header of %llu bytes, at most %llu", label,
                       (unsigned long long)header_bytes,
                       (unsigned long long)SAFETENSORS_HEADER_MAX_BYTES);
    if (header_bytes > len - 8)
        return err_set(err, ST_INVALID, "%s: header of %llu bytes, but the file has only %zu left",
                       label, (unsigned long long)header_bytes, len - 8);
    if (header_bytes < 2 || p[8] != '{')
        return err_set(err, ST_INVALID, "%s: header does not start with '{'", label);

    json *root = NULL;
    enum status st = json_read((const char *)p + 8, (size_t)header_bytes, &root, err);
    if (st) {
        err_prefix(err, "%s: header", label);
        return st;
    }
    struct header h = {.label = label,
                       .data = p + 8 + header_bytes,
                       .data_bytes = len - 8 - header_bytes,
                       .file = f,
                       .err = err};
    st = read_members(&h, root);
    json_free(root);
    if (st)
        safetensors_file_fini(f);
    return st;
}

enum status safetensors_file_open(const char *path, const char *label, struct safetensors_file *f,
                                  struct error *err)
{
    struct file_map map;
    *f = (struct safetensors_file){0};
    enum status st = file_map_open(path, label, &map, err);
    if (!st)
        st = safetensors_file_parse(label, map.bytes, map.len, f, err);
    if (st)
        file_map_close(&map);
    else
        f->map = map;
    return st;
}

void safetensors_file_fini(struct safetensors_file *f)
{
    file_map_close(&f->map);
    free(f->tensors);
    free(f->shapes);
    free(f->names);
    *f = (struct safetensors_file){0};
}
