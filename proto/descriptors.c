/* Walks the serialized descriptors; field numbers are those of google/protobuf/descriptor.proto. */
#include "proto/descriptors.h"

#include <string.h>

extern const uint8_t proto_descriptors[];
extern const size_t proto_descriptors_bytes;

enum { SET_FILE = 1 };
enum { FILE_NAME = 1, FILE_PACKAGE = 2, FILE_MESSAGE = 4, FILE_ENUM = 5, FILE_SERVICE = 6 };
enum { ANY_NAME = 1, MESSAGE_NESTED = 3, MESSAGE_ENUM = 4, SERVICE_METHOD = 2 };
#define NESTING_MAX 8

struct span {
    const uint8_t *p;
    size_t len;
};

static bool varint(struct span *s, uint64_t *out)
{
    uint64_t v = 0;
    for (unsigned shift = 0; shift < 64 && s->len > 0; shift += 7) {
        uint8_t byte = *s->p++;
        s->len--;
        v |= (uint64_t)(byte & 0x7f) << shift;
        if ((byte & 0x80) == 0) {
            *out = v;
            return true;
        }
    }
    return false;
}

/* The next length-delimited field; varints are passed over, nothing else occurs in descriptors. */
static bool next(struct span *s, unsigned *field, struct span *value)
{
    uint64_t key, n;
    while (s->len > 0) {
        if (!varint(s, &key) || !varint(s, &n))
            return false;
        if ((key & 7) == 0)
            continue;
        if ((key & 7) != 2 || n > s->len)
            return false;
        *field = (unsigned)(key >> 3);
        *value = (struct span){s->p, (size_t)n};
        s->p += n;
        s->len -= (size_t)n;
        return true;
    }
    return false;
}

static struct span field_of(struct span message, unsigned want)
{
    unsigned field;
    struct span value;
    while (next(&message, &field, &value))
        if (field == want)
            return value;
    return (struct span){NULL, 0};
}

/* Takes "NAME" or "NAME." off the front of *symbol. */
static bool take(struct span *symbol, struct span name)
{
    if (name.len == 0 || name.len > symbol->len || memcmp(symbol->p, name.p, name.len) != 0)
        return false;
    if (symbol->len > name.len && symbol->p[name.len] != '.')
        return false;
    size_t n = symbol->len > name.len ? name.len + 1 : name.len;
    symbol->p += n;
    symbol->len -= n;
    return true;
}

static bool has_message(struct span message, struct span symbol, int depth)
{
    unsigned field;
    struct span value;
    if (depth > NESTING_MAX || !take(&symbol, field_of(message, ANY_NAME)))
        return false;
    if (symbol.len == 0)
        return true;
    while (next(&message, &field, &value)) {
        struct span rest = symbol;
        if (field == MESSAGE_NESTED && has_message(value, symbol, depth + 1))
            return true;
        if (field == MESSAGE_ENUM && take(&rest, field_of(value, ANY_NAME)) && rest.len == 0)
            return true;
    }
    return false;
}

static bool has_service(struct span service, struct span symbol)
{
    unsigned field;
    struct span value;
    if (!take(&symbol, field_of(service, ANY_NAME)))
        return false;
    if (symbol.len == 0)
        return true;
    while (next(&service, &field, &value)) {
        struct span rest = symbol;
        if (field == SERVICE_METHOD && take(&rest, field_of(value, ANY_NAME)) && rest.len == 0)
            return true;
    }
    return false;
}

static bool has_symbol(struct span file, struct span symbol)
{
    unsigned field;
    struct span value;
    if (!take(&symbol, field_of(file, FILE_PACKAGE)))
        return false;
    while (next(&file, &field, &value)) {
        struct span rest = symbol;
        if ((field == FILE_MESSAGE && has_message(value, symbol, 0)) ||
            (field == FILE_SERVICE && has_service(value, symbol)) ||
            (field == FILE_ENUM && take(&rest, field_of(value, ANY_NAME)) && rest.len == 0))
            return true;
    }
    return false;
}

static bool is_named(struct span file, struct span name)
{
    struct span own = field_of(file, FILE_NAME);
    return own.len == name.len && memcmp(own.p, name.p, own.len) == 0;
}

static bool find(bool (*fits)(struct span, struct span), const char *what, struct descriptor *out)
{
    struct span set = {proto_descriptors, proto_descriptors_bytes}, file;
    struct span wanted = {(const uint8_t *)what, strlen(what)};
    unsigned field;
    while (next(&set, &field, &file))
        if (field == SET_FILE && fits(file, wanted)) {
            *out = (struct descriptor){file.p, file.len};
            return true;
        }
    return false;
}

bool descriptors_find_file(const char *name, struct descriptor *out)
{
    return find(is_named, name, out);
}

bool descriptors_find_symbol(const char *symbol, struct descriptor *out)
{
    size_t len = strlen(symbol);
    if (len == 0 || symbol[len - 1] == '.')
        return false;
    return find(has_symbol, symbol[0] == '.' ? symbol + 1 : symbol, out);
}
