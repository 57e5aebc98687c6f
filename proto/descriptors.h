/* The published .proto files as their compiler describes them (a serialized FileDescriptorSet,
 * embedded at build time), and how to find one in there. Ours and constant; still every read is
 * checked. Pure; any thread. */
#ifndef PROTO_DESCRIPTORS_H
#define PROTO_DESCRIPTORS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct descriptor { /* a serialized FileDescriptorProto */
    const uint8_t *data;
    size_t len;
};

bool descriptors_find_file(const char *name, struct descriptor *out);
/* A service, method, message, enum (nested ones too) by its full name, with or without a leading
 * dot. */
bool descriptors_find_symbol(const char *symbol, struct descriptor *out);
#endif
