#include "kernels/cpu/vec/vec_portable.h"

#include "kernels/cpu/probe/probe_body.h"
