#include "kernels/cpu/bytes_avx2.h"

#include "kernels/cpu/packed_body.h"
#include "kernels/cpu/quantize_body.h"

#include "kernels/cpu/gemm_body.h"
