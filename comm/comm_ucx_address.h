/* Where a UCX worker listens, as text: "192.0.2.1:41000" or "[fd00::2]:41000". Not for other
 * folders. Pure but for ucx_address_local(), which asks the system for its interfaces. */
#ifndef COMM_COMM_UCX_ADDRESS_H
#define COMM_COMM_UCX_ADDRESS_H

#include <stdbool.h>
#include <sys/socket.h>

#define UCX_ADDRESS_TEXT_BYTES 64

/* False: not such an address (it came from a peer, so anything may). */
bool ucx_address_parse(const void *text, size_t bytes, struct sockaddr_storage *out,
                       socklen_t *len);
void ucx_address_format(const struct sockaddr_storage *a, char out[UCX_ADDRESS_TEXT_BYTES]);
/* The address that peers should use, port 0: of `device`; when it is "" or not an IP interface, of
 * the first interface that is up, IPv4 before IPv6, loopback last. */
bool ucx_address_local(const char *device, struct sockaddr_storage *out, socklen_t *len);

#endif
