/* Server reflection, v1 and v1alpha: which services, and the files that declare them. One response
 * per request; the next request is read when the response is out. */
#include <stdlib.h>
#include <string.h>

#include "proto/codec_builtin.h"
#include "proto/descriptors.h"
#include "proto/rpc_grpc/rpc_grpc.h"

#define SERVICES_MAX 64

static const char *const own_services[] = {
    "grpc.health.v1.Health",
    "grpc.reflection.v1.ServerReflection",
    "grpc.reflection.v1alpha.ServerReflection",
};

/* Names are copied (free them); methods of one service stand in any order. */
static size_t list_services(const struct rpc *r, char *names[SERVICES_MAX])
{
    size_t n = 0;
    for (size_t i = 0; i < sizeof own_services / sizeof own_services[0]; i++)
        if ((names[n] = strdup(own_services[i])) != NULL)
            n++;
    for (size_t i = 0; i < r->args.n_methods && n < SERVICES_MAX; i++) {
        const char *method = r->methods[i] + 1;
        size_t len = strcspn(method, "/");
        bool seen = false;
        for (size_t k = 0; k < n; k++)
            seen = seen || (strlen(names[k]) == len && memcmp(names[k], method, len) == 0);
        if (!seen && (names[n] = strndup(method, len)) != NULL)
            n++;
    }
    return n;
}

static void answer(const struct rpc *r, const struct codec_reflect *request, struct buf *out)
{
    struct codec_reflected reply = {0};
    struct descriptor file;
    char *names[SERVICES_MAX];
    size_t n_names = 0;
    bool found = false;
    switch (request->kind) {
    case CODEC_REFLECT_LIST:
        n_names = list_services(r, names);
        reply.services = (const char *const *)names;
        reply.n_services = n_names;
        found = true;
        break;
    case CODEC_REFLECT_FILE:
    case CODEC_REFLECT_SYMBOL:
        found = request->kind == CODEC_REFLECT_FILE ? descriptors_find_file(request->name, &file)
                                                    : descriptors_find_symbol(request->name, &file);
        if (found) {
            reply.file = file.data;
            reply.file_bytes = file.len;
        }
        break;
    case CODEC_REFLECT_EXTENSION:
    case CODEC_REFLECT_EXTENSION_NUMBERS: /* proto3: there are none */
        break;
    }
    if (!found) {
        reply.code = GRPC_STATUS_NOT_FOUND;
        reply.message = "not found";
    }
    codec_put_reflect(out, request, &reply);
    for (size_t i = 0; i < n_names; i++)
        free(names[i]);
}

static void on_message(struct rpc_call *c, const uint8_t *data, size_t len)
{
    struct codec_arena a = {0};
    struct codec_reflect request;
    struct buf out = {0};
    if (codec_get_reflect(data, len, &a, &request) != ST_OK) {
        rpc_call_finish(c, ST_INVALID, "not a ServerReflectionRequest");
    } else {
        answer(c->rpc, &request, &out);
        if (out.failed || rpc_call_send(c, (const uint8_t *)out.data, out.len) != ST_OK)
            rpc_call_finish(c, ST_NO_MEMORY, "out of memory");
    }
    buf_fini(&out);
    codec_arena_fini(&a);
}

static void on_half_close(struct rpc_call *c)
{
    rpc_call_finish(c, ST_OK, NULL);
}

const struct rpc_builtin rpc_reflection_services[] = {
    {"/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", on_message, on_half_close,
     rpc_call_read, NULL},
    {"/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", on_message, on_half_close,
     rpc_call_read, NULL},
    {0},
};
