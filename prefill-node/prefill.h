/* The prefill role: computes prompts and hands their KV over, layer by layer.
 *
 *          on_open           blocks reserved            last chunk               Landed
 *  (none) ---------> OPENED ----------------> COMPUTING -----------> DELIVERING ---------> DONE
 *                      | |                     ^  |                      |                  |
 *                      | +----> COMPILING -----+  |                      |                  |
 *                      |            |             |                      |                  |
 *                      v            v             v                      v                  v
 *                   CLOSING <--- from any: the call ended (cancel, deadline, finish, dead router)
 *                      |
 *                      v  offering quiet
 *                   (none)
 *
 * OPENED: the call exists, the request has not come. COMPILING: its grammar is new to the engine
 * and is compiled elsewhere; the request is kept, and nothing is reserved. COMPUTING: the engine
 * runs the prompt's chunks; each layer of each chunk is offered as soon as its KV is in the pool.
 * DELIVERING: everything is computed, First has been said to the router, Filled to the decode node.
 * DONE: Landed came; OK was said. CLOSING: the call is gone; the blocks stay until the mover is
 * quiet, then become prefix cache. The call is the lease (LAW 1).
 */
#ifndef PREFILL_NODE_PREFILL_H
#define PREFILL_NODE_PREFILL_H

#include "node/role.h"

extern const struct node_role_ops prefill_role_ops;

#endif
