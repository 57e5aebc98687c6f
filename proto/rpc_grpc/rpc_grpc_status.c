/* Statuses on the wire: the nearest gRPC code for every client, our exact word in trailing metadata
 * for our own. */
#include <string.h>

#include "proto/rpc_grpc/rpc_grpc.h"

static const struct {
    enum status status;
    grpc_status_code code;
} codes[] = {
    /* of several statuses with one code, the first is what the code alone reads as */
    {ST_OK, GRPC_STATUS_OK},
    {ST_INVALID, GRPC_STATUS_INVALID_ARGUMENT},
    {ST_INVALID, GRPC_STATUS_OUT_OF_RANGE},
    {ST_INVALID, GRPC_STATUS_ALREADY_EXISTS},
    {ST_PROTOCOL, GRPC_STATUS_INVALID_ARGUMENT},
    {ST_NOT_FOUND, GRPC_STATUS_NOT_FOUND},
    {ST_CANCELLED, GRPC_STATUS_CANCELLED},
    {ST_DEADLINE, GRPC_STATUS_DEADLINE_EXCEEDED},
    {ST_BUSY, GRPC_STATUS_RESOURCE_EXHAUSTED},
    {ST_NO_MEMORY, GRPC_STATUS_RESOURCE_EXHAUSTED},
    {ST_NEVER_FITS, GRPC_STATUS_FAILED_PRECONDITION},
    {ST_INCOMPATIBLE, GRPC_STATUS_FAILED_PRECONDITION},
    {ST_PREEMPTED, GRPC_STATUS_ABORTED},
    {ST_DENIED, GRPC_STATUS_UNAUTHENTICATED},
    {ST_DENIED, GRPC_STATUS_PERMISSION_DENIED},
    {ST_UNSUPPORTED, GRPC_STATUS_UNIMPLEMENTED},
    {ST_LINK, GRPC_STATUS_UNAVAILABLE},
    {ST_TRANSFER, GRPC_STATUS_UNAVAILABLE},
    {ST_CHECKSUM, GRPC_STATUS_DATA_LOSS},
    {ST_TRANSFER, GRPC_STATUS_UNAVAILABLE},
    {ST_INTERNAL, GRPC_STATUS_INTERNAL},
    {ST_INTERNAL, GRPC_STATUS_UNKNOWN},
    {ST_IO, GRPC_STATUS_INTERNAL},
};
#define N_CODES (sizeof codes / sizeof codes[0])

grpc_status_code rpc_code_of(enum status status)
{
    for (size_t i = 0; i < N_CODES; i++)
        if (codes[i].status == status)
            return codes[i].code;
    return GRPC_STATUS_INTERNAL;
}

static bool word_is(grpc_slice word, enum status status)
{
    return grpc_slice_str_cmp(word, status_name(status)) == 0;
}

enum status rpc_status_of(grpc_status_code code, const grpc_metadata_array *trailing,
                          const char *text)
{
    if (code == GRPC_STATUS_OK)
        return ST_OK;
    for (size_t i = 0; i < trailing->count; i++) {
        if (grpc_slice_str_cmp(trailing->metadata[i].key, "baton-status") != 0)
            continue;
        for (size_t k = 1; k < N_CODES; k++)
            if (word_is(trailing->metadata[i].value, codes[k].status))
                return codes[k].status;
    }
    /* gRPC's own refusal of a message over the limit: trying again would not help */
    if (code == GRPC_STATUS_RESOURCE_EXHAUSTED && strstr(text, "larger than max") != NULL)
        return ST_INVALID;
    for (size_t i = 1; i < N_CODES; i++)
        if (codes[i].code == code)
            return codes[i].status;
    return ST_INTERNAL;
}
