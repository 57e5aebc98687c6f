#include "comm/comm_ucx_address.h"

#include <arpa/inet.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

bool ucx_address_parse(const void *text, size_t bytes, struct sockaddr_storage *out, socklen_t *len)
{
    char copy[UCX_ADDRESS_TEXT_BYTES];
    if (bytes == 0 || bytes >= sizeof(copy) || memchr(text, '\0', bytes))
        return false;
    memcpy(copy, text, bytes);
    copy[bytes] = '\0';
    char *colon = strrchr(copy, ':'), *end;
    if (!colon || colon[1] < '0' || colon[1] > '9')
        return false;
    unsigned long port = strtoul(colon + 1, &end, 10);
    if (*end != '\0' || port < 1 || port > 65535)
        return false;
    *colon = '\0';
    memset(out, 0, sizeof(*out));
    struct sockaddr_in *v4 = (struct sockaddr_in *)out;
    struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)out;
    if (copy[0] != '[') {
        v4->sin_family = AF_INET;
        v4->sin_port = htons((uint16_t)port);
        *len = sizeof(*v4);
        return inet_pton(AF_INET, copy, &v4->sin_addr) == 1;
    }
    if (colon[-1] != ']')
        return false;
    colon[-1] = '\0';
    v6->sin6_family = AF_INET6;
    v6->sin6_port = htons((uint16_t)port);
    *len = sizeof(*v6);
    return inet_pton(AF_INET6, copy + 1, &v6->sin6_addr) == 1;
}

void ucx_address_format(const struct sockaddr_storage *a, char out[UCX_ADDRESS_TEXT_BYTES])
{
    char ip[INET6_ADDRSTRLEN] = "";
    if (a->ss_family == AF_INET) {
        const struct sockaddr_in *v4 = (const struct sockaddr_in *)a;
        inet_ntop(AF_INET, &v4->sin_addr, ip, sizeof(ip));
        snprintf(out, UCX_ADDRESS_TEXT_BYTES, "%s:%u", ip, ntohs(v4->sin_port));
    } else {
        const struct sockaddr_in6 *v6 = (const struct sockaddr_in6 *)a;
        inet_ntop(AF_INET6, &v6->sin6_addr, ip, sizeof(ip));
        snprintf(out, UCX_ADDRESS_TEXT_BYTES, "[%s]:%u", ip, ntohs(v6->sin6_port));
    }
}

/* Smaller is better; 0: of no use. */
static int rank_of(const struct ifaddrs *i, const char *device)
{
    if (!i->ifa_addr || !(i->ifa_flags & IFF_UP) || !(i->ifa_flags & IFF_RUNNING))
        return 0;
    if (device[0] && strcmp(device, i->ifa_name) != 0)
        return 0;
    int loopback = i->ifa_flags & IFF_LOOPBACK ? 2 : 0;
    if (i->ifa_addr->sa_family == AF_INET)
        return 1 + loopback;
    if (i->ifa_addr->sa_family != AF_INET6)
        return 0;
    /* A link-local address means nothing without its interface. */
    const struct sockaddr_in6 *v6 = (const struct sockaddr_in6 *)(const void *)i->ifa_addr;
    return IN6_IS_ADDR_LINKLOCAL(&v6->sin6_addr) ? 0 : 2 + loopback;
}

static bool find_local(const struct ifaddrs *all, const char *device, struct sockaddr_storage *out,
                       socklen_t *len)
{
    int best = 0;
    for (const struct ifaddrs *i = all; i; i = i->ifa_next) {
        int rank = rank_of(i, device);
        if (rank == 0 || (best > 0 && rank >= best))
            continue;
        best = rank;
        bool v4 = i->ifa_addr->sa_family == AF_INET;
        *len = v4 ? sizeof(struct sockaddr_in) : sizeof(struct sockaddr_in6);
        memset(out, 0, sizeof(*out));
        memcpy(out, i->ifa_addr, *len);
    }
    return best > 0;
}

bool ucx_address_local(const char *device, struct sockaddr_storage *out, socklen_t *len)
{
    struct ifaddrs *all = NULL;
    if (getifaddrs(&all) != 0)
        return false;
    bool found = find_local(all, device, out, len) || (device[0] && find_local(all, "", out, len));
    freeifaddrs(all);
    return found;
}
