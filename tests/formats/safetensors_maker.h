/* Writes safetensors bytes for tests: tensors of zeros, one behind the other. Thread: any; the
 * buffer is the caller's. */
#ifndef TESTS_FORMATS_SAFETENSORS_MAKER_H
#define TESTS_FORMATS_SAFETENSORS_MAKER_H

#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"

/* A tensor "NAME DTYPE [SHAPE]". */
struct spec {
    const char *name, *type, *shape;
    size_t bytes;
};

/* Of at most n: one without a name ends them. */
static inline struct buf make_file(const struct spec *specs, size_t n)
{
    struct buf header = {0}, file = {0};
    size_t at = 0;
    buf_puts(&header, "{");
    for (size_t i = 0; i < n && specs[i].name; i++) {
        buf_printf(&header, "%s\"%s\":{\"dtype\":\"%s\",\"shape\":%s,\"data_offsets\":[%zu,%zu]}",
                   i ? "," : "", specs[i].name, specs[i].type, specs[i].shape, at,
                   at + specs[i].bytes);
        at += specs[i].bytes;
    }
    buf_puts(&header, "}");
    for (int i = 0; i < 8; i++)
        buf_putc(&file, (char)((uint64_t)header.len >> (8 * i)));
    buf_append(&file, header.data, header.len);
    for (size_t i = 0; i < at; i++)
        buf_putc(&file, 0);
    buf_fini(&header);
    return file;
}

#endif
