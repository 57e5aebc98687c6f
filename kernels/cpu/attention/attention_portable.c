#include "kernels/cpu/vec/kv_portable.h"

#include "kernels/cpu/attention/attention_body.h"
