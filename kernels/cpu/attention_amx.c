#include "kernels/cpu/kv_avx512.h"

#include "kernels/cpu/attention_body.h"
