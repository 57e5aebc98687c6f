#include "kernels/cpu/vec_portable.h"

#include "kernels/exp_body.h"
