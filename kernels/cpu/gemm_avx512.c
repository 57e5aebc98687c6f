#include "kernels/cpu/vec_avx512.h"

#include "kernels/cpu/gemm_body.h"
