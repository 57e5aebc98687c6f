/* Health and reflection messages. */
#include "proto/codec_builtin.h"

#include "grpc/health/v1/health.pb-c.h"
#include "grpc/reflection/v1/reflection.pb-c.h"
#include "proto/codec_pb.h"

typedef Grpc__Health__V1__HealthCheckRequest HealthRequest;
typedef Grpc__Health__V1__HealthCheckResponse HealthResponse;
typedef Grpc__Reflection__V1__ServerReflectionRequest ReflectRequest;
typedef Grpc__Reflection__V1__ServerReflectionResponse ReflectResponse;
#define ASKS(what) GRPC__REFLECTION__V1__SERVER_REFLECTION_REQUEST__MESSAGE_REQUEST_##what
#define TELLS(what) GRPC__REFLECTION__V1__SERVER_REFLECTION_RESPONSE__MESSAGE_RESPONSE_##what

enum status codec_get_health_request(const uint8_t *data, size_t len, struct codec_arena *a,
                                     const char **service)
{
    const HealthRequest *p =
        codec_parse(&grpc__health__v1__health_check_request__descriptor, data, len, a);
    if (p == NULL)
        return ST_PROTOCOL;
    *service = p->service;
    return ST_OK;
}

void codec_put_health(struct buf *out, enum codec_health health)
{
    HealthResponse p = GRPC__HEALTH__V1__HEALTH_CHECK_RESPONSE__INIT;
    p.status = (Grpc__Health__V1__HealthCheckResponse__ServingStatus)health;
    codec_pack(out, &p);
}

void codec_put_health_request(struct buf *out, const char *service)
{
    HealthRequest p = GRPC__HEALTH__V1__HEALTH_CHECK_REQUEST__INIT;
    p.service = codec_pb_str(service);
    codec_pack(out, &p);
}

enum status codec_get_health(const uint8_t *data, size_t len, enum codec_health *health)
{
    struct codec_arena a = {0};
    const HealthResponse *p =
        codec_parse(&grpc__health__v1__health_check_response__descriptor, data, len, &a);
    bool ok = p != NULL && p->status >= 1 && p->status <= 3;
    if (ok)
        *health = (enum codec_health)p->status;
    codec_arena_fini(&a);
    return ok ? ST_OK : ST_PROTOCOL;
}

enum status codec_get_reflect(const uint8_t *data, size_t len, struct codec_arena *a,
                              struct codec_reflect *m)
{
    const ReflectRequest *p =
        codec_parse(&grpc__reflection__v1__server_reflection_request__descriptor, data, len, a);
    if (p == NULL)
        return ST_PROTOCOL;
    *m = (struct codec_reflect){.name = "", .original = p};
    switch (p->message_request_case) {
    case ASKS(FILE_BY_FILENAME):
        m->kind = CODEC_REFLECT_FILE;
        m->name = p->file_by_filename;
        return ST_OK;
    case ASKS(FILE_CONTAINING_SYMBOL):
        m->kind = CODEC_REFLECT_SYMBOL;
        m->name = p->file_containing_symbol;
        return ST_OK;
    case ASKS(FILE_CONTAINING_EXTENSION):
        m->kind = CODEC_REFLECT_EXTENSION;
        return ST_OK;
    case ASKS(ALL_EXTENSION_NUMBERS_OF_TYPE):
        m->kind = CODEC_REFLECT_EXTENSION_NUMBERS;
        m->name = p->all_extension_numbers_of_type;
        return ST_OK;
    case ASKS(LIST_SERVICES):
        m->kind = CODEC_REFLECT_LIST;
        return ST_OK;
    default:
        return ST_PROTOCOL;
    }
}

static bool put_services(struct buf *out, struct codec_arena *a, ReflectResponse *p,
                         const struct codec_reflected *m)
{
    Grpc__Reflection__V1__ListServiceResponse list =
        GRPC__REFLECTION__V1__LIST_SERVICE_RESPONSE__INIT;
    list.service = (Grpc__Reflection__V1__ServiceResponse **)codec_submessages(
        out, a, m->n_services, sizeof **list.service);
    if (list.service == NULL)
        return false;
    list.n_service = m->n_services;
    for (size_t i = 0; i < m->n_services; i++) {
        grpc__reflection__v1__service_response__init(list.service[i]);
        list.service[i]->name = codec_pb_str(m->services[i]);
    }
    p->message_response_case = TELLS(LIST_SERVICES_RESPONSE);
    p->list_services_response = &list;
    codec_pack(out, p);
    return true;
}

void codec_put_reflect(struct buf *out, const struct codec_reflect *request,
                       const struct codec_reflected *m)
{
    struct codec_arena a = {0};
    ReflectResponse p = GRPC__REFLECTION__V1__SERVER_REFLECTION_RESPONSE__INIT;
    Grpc__Reflection__V1__ErrorResponse error = GRPC__REFLECTION__V1__ERROR_RESPONSE__INIT;
    Grpc__Reflection__V1__FileDescriptorResponse files =
        GRPC__REFLECTION__V1__FILE_DESCRIPTOR_RESPONSE__INIT;
    ProtobufCBinaryData file = {.len = m->file_bytes, .data = (uint8_t *)(uintptr_t)m->file};
    p.original_request = (ReflectRequest *)(uintptr_t)request->original;
    if (m->code == 0 && m->file == NULL) {
        put_services(out, &a, &p, m);
    } else if (m->code == 0) {
        files.file_descriptor_proto = &file;
        files.n_file_descriptor_proto = 1;
        p.message_response_case = TELLS(FILE_DESCRIPTOR_RESPONSE);
        p.file_descriptor_response = &files;
        codec_pack(out, &p);
    } else {
        error.error_code = m->code;
        error.error_message = codec_pb_str(m->message);
        p.message_response_case = TELLS(ERROR_RESPONSE);
        p.error_response = &error;
        codec_pack(out, &p);
    }
    codec_arena_fini(&a);
}
