#include "kernels/cpu/vec_avx2.h"

#include "kernels/cpu/probe_body.h"
