#include "kernels/cpu/vec/vec_portable.h"

#include "kernels/cpu/rows/logits_body.h"
