#include "kernels/cpu/vec/vec_avx512.h"

#include "kernels/cpu/probe/probe_body.h"
