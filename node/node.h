/* A node's process: model, engine, mover, servers and the loop that ties them to a role.
 *
 *     poll rpc -> poll transfers -> poll http -> role says what it has -> one engine step -> again;
 * asleep when idle
 *
 * One loop thread owns all of it; kernel threads run inside a step, gRPC and HTTP have threads of
 * their own that only queue events, one transfer thread moves KV, and one compiles grammars.
 * node_main() is the whole of a
 * program but for its role.
 */
#ifndef NODE_NODE_H
#define NODE_NODE_H

#include "base/config.h"
#include "node/role.h"

/* Runs until SIGINT or SIGTERM and a drain; returns the exit status. Prints one line to stdout when
 * it is ready: node name=NAME role=ROLE rank=R pid=PID grpc=HOST:PORT http=http://HOST:PORT A start
 * that fails prints one line to stderr. */
int node_main(const struct config *config, const struct node_role_ops *role, bool aggregated);

#endif
