/* What comm/ucx.h answers before the worker exists. */
#include "comm/ucx.h"

enum status ucx_worker_create(const struct ucx_worker_args *args, struct ucx_worker **out,
                              struct error *err)
{
    return err_set(err, ST_UNSUPPORTED, "UCX is not ready in this build");
}
