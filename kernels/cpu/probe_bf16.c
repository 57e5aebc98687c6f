#include "kernels/cpu/vec_avx512.h"

#include "kernels/cpu/probe_body.h"
