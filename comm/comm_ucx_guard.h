/* Keeps noise away from the socket on which UCX listens. UCX 1.13 trusts what it reads there: a
 * hello whose length does not fit what has arrived fails an assertion of its own and takes the
 * process along. So the kernel drops, before UCX sees them, segments that are not whole hellos:
 *
 *     8 bytes  little-endian length of what follows the header, at most GUARD_HELLO_BYTES_MAX
 *     8 bytes  status (0) and padding
 *     length bytes
 *
 * A guard against noise and faults (port scanners, a client with a wrong address), not against an
 * attacker who knows UCX: the KV plane belongs on a trusted network. Data does not pass here: it
 * has connections of its own, which UCX checks by a magic number. A hello of some hundred bytes is
 * one segment on every network with an MTU of 1500 or more.
 */
#ifndef COMM_COMM_UCX_GUARD_H
#define COMM_COMM_UCX_GUARD_H

#include <sys/socket.h>

#include "base/status.h"

#define GUARD_HELLO_BYTES_MAX 2048

/* Guards the listening socket of this process that is bound to `at`, and with it every connection
 * that it will accept. ST_NOT_FOUND: there is none; ST_IO: the system refuses. */
enum status ucx_guard_listener(const struct sockaddr *at);

#endif
