/* UCX as a transport of KV. */
#include "comm/ucx.h"
#include "kvtransfer/transport.h"

enum status transport_ucx_create(const struct transport_ucx_args *args, struct transport **out,
                                 struct error *err)
{
    const struct ucx_worker_args a = {.device = args->device, .keepalive_ns = args->keepalive_ns};
    struct ucx_worker *worker;
    return ucx_worker_create(&a, &worker, err);
}
