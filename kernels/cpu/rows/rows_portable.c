#include "kernels/cpu/vec/vec_portable.h"

#include "kernels/cpu/rows/rows_body.h"
