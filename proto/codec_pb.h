/* Inside of the codecs: protobuf-c behind three calls. Included by codec_*.c only.
 *
 * codec_parse() checks the bytes against the message's descriptor before anything is allocated
 * (well-formed to the last byte, strings are UTF-8 without NULs) and unpacks them into the arena,
 * whose total it bounds: a hostile message cannot make more than CODEC_ARENA_FLOOR +
 * CODEC_ARENA_RATIO times its own size. What is left for the converters are counts, ranges and the
 * shape of `bytes` fields.
 *
 * Thread: any; pure. A converter that fails leaves the arena to codec_arena_fini() as one that
 * succeeds.
 */
#ifndef PROTO_CODEC_PB_H
#define PROTO_CODEC_PB_H

#include <protobuf-c/protobuf-c.h>

#include "proto/codec.h"

#define CODEC_ARENA_FLOOR ((size_t)1 << 20)
#define CODEC_ARENA_RATIO 8

/* NULL: malformed, over the bound, or out of memory. */
void *codec_parse(const ProtobufCMessageDescriptor *type, const uint8_t *data, size_t len,
                  struct codec_arena *a);
/* Zeroed, 16-byte aligned; NULL when memory is out. n * bytes must not overflow (callers bound n).
 */
void *codec_alloc(struct codec_arena *a, size_t n, size_t bytes);
/* Appends the message's bytes to *out. */
void codec_pack(struct buf *out, const void *message);
/* An array of `n` pointers to `n` messages of `bytes` each, zeroed; NULL (and out->failed) when
 * memory is out. */
void **codec_submessages(struct buf *out, struct codec_arena *a, size_t n, size_t bytes);

/* `bytes` of little-endian ids, in place; false when cut, over `max` or with an id beyond int32. */
bool codec_ids(ProtobufCBinaryData b, uint32_t max, struct msg_ids *out);
ProtobufCBinaryData codec_ids_bytes(struct msg_ids ids);
/* A string within `max` bytes; *out is never NULL on success. */
bool codec_str(const char *s, size_t max, const char **out);
/* For encoders: protobuf-c takes char *, but only reads. */
char *codec_pb_str(const char *s);
#endif
