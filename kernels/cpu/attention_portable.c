#include "kernels/cpu/vec_portable.h"

#include "kernels/cpu/attention_body.h"
