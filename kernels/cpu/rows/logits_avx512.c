#include "kernels/cpu/vec/vec_avx512.h"

#include "kernels/cpu/rows/logits_body.h"
