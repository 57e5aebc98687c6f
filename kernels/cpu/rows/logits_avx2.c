#include "kernels/cpu/vec/vec_avx2.h"

#include "kernels/cpu/rows/logits_body.h"
