#include "kernels/cpu/vec_portable.h"

#include "kernels/cpu/logits_body.h"
