#define TILES_BLOCK_ROWS 256 /* as tiles_lines_body.h has them */
#include "kernels/cpu/vec/vec_avx512.h"

#include "kernels/cpu/rows/rows_body.h"
