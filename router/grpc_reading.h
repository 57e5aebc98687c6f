/* A message of a gRPC client on its way to ids: decoded, checked, tokenized. What is small is read
 * at once; what is large, or has a grammar to compile, is a job for the desk. For grpc_*.c alone.
 *
 *     d = grpc_reading_create(r, generate);
 *     if (!grpc_reading_begin(d, data, len))   // not at once: the caller gives d->job to the desk
 *
 * Owner: the maker, then the desk; job.drop() frees it. Thread: the loop; job.work() from any.
 */
#ifndef ROUTER_GRPC_READING_H
#define ROUTER_GRPC_READING_H

#include "proto/codec.h"
#include "router/router.h"

struct grpc_call;

struct grpc_reading {
    struct desk_job job; /* first; done() is the maker's */
    struct router *r;
    struct grpc_call *call; /* the loop's alone */
    int64_t arrived_ns;
    bool generate, decoded;
    struct buf data; /* undecoded */
    struct codec_arena arena;
    /* what has come of it */
    enum status status;
    struct error err;
    struct msg_generate m; /* of Tokenize: model, text and add_special */
    struct ids ids;
    struct buf out; /* of Tokenize */
};

struct grpc_reading *grpc_reading_create(struct router *r, bool generate);
/* True: `status` and what belongs to it are there. */
bool grpc_reading_begin(struct grpc_reading *d, const uint8_t *data, size_t len);

#endif
