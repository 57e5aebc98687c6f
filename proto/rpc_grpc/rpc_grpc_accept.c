/* Keeps gRPC's listening ports alive. gRPC core 1.51 gives a port up for good when accept4() fails
 * in any way but "try again", so a process that runs out of descriptors once, as strangers with
 * idle connections can arrange, would never accept again. This accept4() stands in front of the C
 * library's for the whole process: it never lets connections take the last descriptors, and what
 * concerns only one connection, or will pass, reads as "try again".
 */
#include <errno.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "proto/rpc_grpc/rpc_grpc.h"

#define SPARE_DESCRIPTORS 32 /* for files, pipes and our own connections */

/* Numbers are given out from below: one this high says that the table is nearly full. */
static bool too_many(int fd)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY)
        return false;
    return (rlim_t)fd + SPARE_DESCRIPTORS >= limit.rlim_cur;
}

int accept4(int fd, __SOCKADDR_ARG address, socklen_t *restrict address_bytes, int flags)
{
    socklen_t room = address_bytes != NULL ? *address_bytes : 0;
    for (;;) {
        if (address_bytes != NULL)
            *address_bytes = room;
        int got = (int)syscall(SYS_accept4, fd, address.__sockaddr__, address_bytes, flags);
        if (got >= 0 && !too_many(got))
            return got;
        if (got >= 0) {
            close(got);
            continue;
        }
        switch (errno) {
        case EMFILE:
        case ENFILE:
        case ENOBUFS:
        case ENOMEM: /* the connection stays in the kernel's queue */
            errno = EAGAIN;
            return -1;
        case ECONNABORTED:
        case EPERM:
        case EPROTO:
        case ENETDOWN:
        case ENETUNREACH:
        case EHOSTDOWN:
        case EHOSTUNREACH:
        case ENONET:
        case ENOPROTOOPT: /* this connection's own error; it is gone */
            continue;
        default:
            return -1;
        }
    }
}

void rpc_accept_guard(void)
{
}
