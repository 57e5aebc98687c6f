#include "kernels/cpu/kv_avx2.h"

#include "kernels/cpu/attention_body.h"
