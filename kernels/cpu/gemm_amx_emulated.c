#define TILES_EMULATED 1
#include "kernels/cpu/bytes_avx512.h"

#include "kernels/cpu/packed_body.h"
#include "kernels/cpu/quantize_body.h"
#include "kernels/cpu/tiles_bytes_body.h"
#include "kernels/cpu/tiles_pairs_body.h"

#include "kernels/cpu/gemm_body.h"
