#define TILES_EMULATED 1
#define TILES_BLOCK_ROWS 64 /* for tests of few rows */
#include "kernels/cpu/vec/vec_avx512.h"

#include "kernels/cpu/rows/rows_body.h"
