#include "kernels/cpu/vec/vec_avx512.h"

#include "kernels/exp_body.h"
