#include "kernels/cpu/vec_portable.h"

#include "kernels/cpu/rows_body.h"
