/* Messages of the services that every server answers by itself: grpc.health.v1 and grpc.reflection
 * (v1 and v1alpha are the same on the wire). Pure; any thread. Pointers given out live in the
 * arena. */
#ifndef PROTO_CODEC_BUILTIN_H
#define PROTO_CODEC_BUILTIN_H

#include "proto/codec.h"

enum codec_health {
    CODEC_HEALTH_SERVING = 1,
    CODEC_HEALTH_NOT_SERVING = 2,
    CODEC_HEALTH_UNKNOWN = 3
};

enum status codec_get_health_request(const uint8_t *data, size_t len, struct codec_arena *a,
                                     const char **service);
void codec_put_health(struct buf *out, enum codec_health health);
/* For clients. */
void codec_put_health_request(struct buf *out, const char *service);
enum status codec_get_health(const uint8_t *data, size_t len, enum codec_health *health);

enum codec_reflect_kind {
    CODEC_REFLECT_FILE = 1,
    CODEC_REFLECT_SYMBOL,
    CODEC_REFLECT_EXTENSION,
    CODEC_REFLECT_EXTENSION_NUMBERS,
    CODEC_REFLECT_LIST,
};

struct codec_reflect {
    enum codec_reflect_kind kind;
    const char *name;     /* file, symbol or type */
    const void *original; /* for codec_put_reflect(): the request is repeated in the response */
};

struct codec_reflected { /* a file, a list of services, or an error (code != 0) */
    const uint8_t *file;
    size_t file_bytes;
    const char *const *services;
    size_t n_services;
    int code; /* gRPC status code */
    const char *message;
};

enum status codec_get_reflect(const uint8_t *data, size_t len, struct codec_arena *a,
                              struct codec_reflect *m);
void codec_put_reflect(struct buf *out, const struct codec_reflect *request,
                       const struct codec_reflected *m);
#endif
