#include "kernels/cpu/vec_portable.h"

#include "kernels/cpu/gemm_body.h"
