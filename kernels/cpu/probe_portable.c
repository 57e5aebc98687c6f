#include "kernels/cpu/vec_portable.h"

#include "kernels/cpu/probe_body.h"
