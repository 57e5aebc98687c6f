#define TILES_EMULATED 1
#include "kernels/cpu/vec/vec_avx512.h"

#include "kernels/cpu/rows/rows_body.h"
