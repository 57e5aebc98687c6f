#include "kernels/cpu/vec/vec_avx2.h"

#include "kernels/cpu/probe/probe_body.h"
