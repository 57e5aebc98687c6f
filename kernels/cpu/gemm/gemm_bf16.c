#include "kernels/cpu/vec/bytes_avx512.h"

#include "kernels/cpu/gemm/packed_body.h"
#include "kernels/cpu/gemm/panels_body.h"
#include "kernels/cpu/gemm/quantize_body.h"
#include "kernels/cpu/gemm/whole_body.h"
#include "kernels/cpu/gemm/wide_body.h"

#include "kernels/cpu/gemm/gemm_body.h"
