#include "kernels/cpu/vec/vec_avx2.h"

#include "kernels/exp_body.h"
