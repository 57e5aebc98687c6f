#include "kvtransfer/shm_pool.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/huge.h"

#define SEALS (F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL)

/* Our own mapping is made before the seal that forbids further ones for writing; a kernel before
 * 5.1 does not have it. */
static bool seal(int fd)
{
    if (fcntl(fd, F_ADD_SEALS, SEALS | F_SEAL_FUTURE_WRITE) == 0)
        return true;
    return errno == EINVAL && fcntl(fd, F_ADD_SEALS, SEALS) == 0;
}

enum status shm_pool_create(struct shm_pool *out, size_t bytes, struct error *err)
{
    *out = (struct shm_pool){.fd = memfd_create("baton-kv", MFD_CLOEXEC | MFD_ALLOW_SEALING),
                             .bytes = bytes};
    if (out->fd >= 0 && ftruncate(out->fd, (off_t)bytes) == 0) {
        void *base = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, out->fd, 0);
        out->base = base == MAP_FAILED ? NULL : base;
    }
    if (out->base && seal(out->fd)) {
        huge_ask(out->base, bytes);
        return ST_OK;
    }
    enum status st =
        err_set(err, ST_NO_MEMORY, "the KV pool of %zu bytes: %s", bytes, strerror(errno));
    shm_pool_destroy(out);
    return st;
}

void shm_pool_destroy(struct shm_pool *p)
{
    if (p->base)
        munmap(p->base, p->bytes);
    if (p->fd >= 0)
        close(p->fd);
    *p = (struct shm_pool){.fd = -1};
}
