/* What comm/ucx.h answers in a build without UCX: there is no worker, so nothing else is ever
 * called. */
#include <assert.h>

#include "comm/ucx.h"

enum status ucx_worker_create(const struct ucx_worker_args *args, struct ucx_worker **out,
                              struct error *err)
{
    return err_set(err, ST_UNSUPPORTED, "built without UCX");
}

void ucx_worker_destroy(struct ucx_worker *w)
{
    assert(w == NULL);
}

enum status ucx_worker_address(struct ucx_worker *w, struct buf *out, struct error *err)
{
    return err_set(err, ST_UNSUPPORTED, "built without UCX");
}

const char *ucx_worker_transports(const struct ucx_worker *w)
{
    return "";
}

bool ucx_worker_progress(struct ucx_worker *w)
{
    return false;
}

int ucx_worker_fd(struct ucx_worker *w)
{
    return -1;
}

bool ucx_worker_arm(struct ucx_worker *w)
{
    return true;
}

enum status ucx_ep_connect(struct ucx_worker *w, const void *address, size_t bytes, void *user,
                           struct ucx_ep **out, struct error *err)
{
    return err_set(err, ST_UNSUPPORTED, "built without UCX");
}

enum status ucx_ep_send(struct ucx_ep *ep, const struct ucx_send *s)
{
    return ST_UNSUPPORTED;
}

void ucx_ep_close(struct ucx_ep *ep)
{
    assert(ep == NULL);
}

enum status ucx_data_pull(struct ucx_data *d, void *dst, uint64_t token)
{
    return ST_UNSUPPORTED;
}

void ucx_data_drop(struct ucx_data *d)
{
    assert(d == NULL);
}
