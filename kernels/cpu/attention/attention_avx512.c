#include "kernels/cpu/vec/kv_avx512.h"

#include "kernels/cpu/attention/attention_body.h"
