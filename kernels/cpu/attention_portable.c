#include "kernels/cpu/kv_portable.h"

#include "kernels/cpu/attention_body.h"
