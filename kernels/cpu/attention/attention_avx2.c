#include "kernels/cpu/vec/kv_avx2.h"

#include "kernels/cpu/attention/attention_body.h"
