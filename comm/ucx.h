/* The one wrapper of a UCX worker: endpoints to peers, active messages with or without data that
 * the receiver pulls, and every completion exactly once. Nothing of UCX shows here. */
#ifndef COMM_UCX_H
#define COMM_UCX_H

#include <stdint.h>

#include "base/status.h"

struct ucx_worker;

struct ucx_worker_args {
    const char *device; /* network device; "" any */
    int64_t keepalive_ns;
};

/* ST_UNSUPPORTED: built without UCX. */
enum status ucx_worker_create(const struct ucx_worker_args *args, struct ucx_worker **out,
                              struct error *err);

#endif
