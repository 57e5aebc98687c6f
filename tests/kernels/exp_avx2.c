#include "kernels/cpu/vec_avx2.h"

#include "kernels/exp_body.h"
