#include "kernels/cpu/vec_avx2.h"

#include "kernels/cpu/logits_body.h"
