/* The memory of a KV pool as other processes of this host may see it: a memfd, mapped here for
 * writing and by nobody else. It is sealed: it cannot shrink (which would fault its readers) or
 * grow, and who is given its descriptor can read it and no more. Zeroed at first.
 *
 * Owner: whoever creates it. Thread: any.
 */
#ifndef KVTRANSFER_SHM_POOL_H
#define KVTRANSFER_SHM_POOL_H

#include <stddef.h>

#include "base/status.h"

struct shm_pool {
    int fd;
    void *base; /* NULL: there is none */
    size_t bytes;
};

/* ST_NO_MEMORY, with the reason. On failure *out is as after shm_pool_destroy(). */
enum status shm_pool_create(struct shm_pool *out, size_t bytes, struct error *err);
void shm_pool_destroy(struct shm_pool *p);

#endif
