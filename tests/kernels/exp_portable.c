#include "kernels/cpu/vec/vec_portable.h"

#include "kernels/exp_body.h"
