/* The decode role: takes KV from prefill nodes, or computes it here, and streams tokens.
 *
 *          on_open           Start accepted            landed
 *  (none) ---------> OPENED ---------------> FILLING ----------> RUNNING
 *                      |  \                  |    \                ^ ^
 *                      |   \                 |     \ prefill_here  | |
 *                      |    \                |      +-> SWITCHING --+ |  plan quiet
 *                      |     +---------------|--- local prefill -----+
 *                      |                     |
 *                      +----> COMPILING -----+--> either, as from OPENED
 *                      v          v          v
 *                   CLOSING <--- from any: the call ended (cancel, deadline, finish, dead router)
 *                      |
 *                      v  landing plan quiet
 *                   (none)
 *
 * OPENED: the call exists, Start has not come. COMPILING: its grammar is new to the engine and is
 * compiled elsewhere; Start is kept, nothing is reserved, and what the router says next is not read
 * yet. FILLING: blocks reserved, landing plan registered, Accepted said; the engine does not run
 * the group. SWITCHING (between FILLING and RUNNING): no prefill node will come; waiting for the
 * plan to be quiet. RUNNING: the engine runs the group. CLOSING: the call is gone; blocks that the
 * mover may touch are quarantined until QUIET. The call is the lease (LAW 1): leaving for CLOSING
 * releases everything.
 */
#ifndef DECODE_NODE_DECODE_H
#define DECODE_NODE_DECODE_H

#include "node/role.h"

extern const struct node_role_ops decode_role_ops;

#endif
