#include "comm/comm_ucx_guard.h"

#include <dirent.h>
#include <linux/filter.h>
#include <netinet/in.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

/* What UCX puts before a hello: length and status. */
#define HEADER 16
#define ROWS (sizeof(rows) / sizeof(rows[0]))

/* A classic BPF program over a TCP segment from its own header on. X is where the payload begins;
 * scratch 1 is its length without HEADER, 2 a byte on its way into a number. */
static struct sock_filter rows[] = {
    BPF_STMT(BPF_LD | BPF_B | BPF_ABS, 12), /* 0: data offset, in words */
    BPF_STMT(BPF_ALU | BPF_RSH | BPF_K, 4),
    BPF_STMT(BPF_ALU | BPF_LSH | BPF_K, 2),
    BPF_STMT(BPF_MISC | BPF_TAX, 0),
    BPF_STMT(BPF_LD | BPF_W | BPF_LEN, 0),
    BPF_STMT(BPF_ALU | BPF_SUB | BPF_X, 0),
    BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, 0, 18, 0),      /* 6: no payload: SYN, ACK, FIN: pass */
    BPF_JUMP(BPF_JMP | BPF_JGE | BPF_K, HEADER, 0, 18), /* 7: less than a header: drop */
    BPF_STMT(BPF_ALU | BPF_SUB | BPF_K, HEADER),
    BPF_JUMP(BPF_JMP | BPF_JGT | BPF_K, GUARD_HELLO_BYTES_MAX, 16, 0), /* 9 */
    BPF_STMT(BPF_ST, 1),
    BPF_STMT(BPF_LD | BPF_W | BPF_IND, 4), /* 11: bytes 2 to 7 of the length are 0 */
    BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, 0, 0, 13),
    BPF_STMT(BPF_LD | BPF_H | BPF_IND, 2),
    BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, 0, 0, 11),
    BPF_STMT(BPF_LD | BPF_B | BPF_IND, 8), /* 15: status */
    BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, 0, 0, 9),
    BPF_STMT(BPF_LD | BPF_B | BPF_IND, 1), /* 17: bytes 0 and 1 are the payload's length */
    BPF_STMT(BPF_ALU | BPF_LSH | BPF_K, 8),
    BPF_STMT(BPF_ST, 2),
    BPF_STMT(BPF_LD | BPF_B | BPF_IND, 0),
    BPF_STMT(BPF_LDX | BPF_W | BPF_MEM, 2),
    BPF_STMT(BPF_ALU | BPF_ADD | BPF_X, 0),
    BPF_STMT(BPF_LDX | BPF_W | BPF_MEM, 1),
    BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_X, 0, 0, 1), /* 24 */
    BPF_STMT(BPF_RET | BPF_K, UINT32_MAX),        /* 25: pass */
    BPF_STMT(BPF_RET | BPF_K, 0),                 /* 26: drop */
};

static bool same_address(const struct sockaddr *a, const struct sockaddr_storage *b)
{
    if (a->sa_family != b->ss_family)
        return false;
    if (a->sa_family == AF_INET) {
        const struct sockaddr_in *x = (const void *)a, *y = (const void *)b;
        return x->sin_port == y->sin_port && x->sin_addr.s_addr == y->sin_addr.s_addr;
    }
    const struct sockaddr_in6 *x = (const void *)a, *y = (const void *)b;
    return a->sa_family == AF_INET6 && x->sin6_port == y->sin6_port &&
           memcmp(&x->sin6_addr, &y->sin6_addr, sizeof(x->sin6_addr)) == 0;
}

static bool listens_at(int fd, const struct sockaddr *at)
{
    struct sockaddr_storage own = {0};
    socklen_t own_len = sizeof(own), flag_len = sizeof(int);
    int listening = 0;
    return getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listening, &flag_len) == 0 && listening &&
           getsockname(fd, (struct sockaddr *)&own, &own_len) == 0 && same_address(at, &own);
}

/* UCX does not say which descriptor it is. */
enum status ucx_guard_listener(const struct sockaddr *at)
{
    const struct sock_fprog program = {.len = ROWS, .filter = rows};
    enum status st = ST_NOT_FOUND;
    DIR *d = opendir("/proc/self/fd");
    for (struct dirent *e = d ? readdir(d) : NULL; e && st == ST_NOT_FOUND; e = readdir(d)) {
        int fd = atoi(e->d_name);
        if (e->d_name[0] >= '0' && e->d_name[0] <= '9' && listens_at(fd, at))
            st = setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof(program)) == 0
                     ? ST_OK
                     : ST_IO;
    }
    if (d)
        closedir(d);
    return st;
}
