#include "kernels/cpu/vec_avx512.h"

#include "kernels/cpu/logits_body.h"
