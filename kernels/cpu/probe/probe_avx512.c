#include "kernels/cpu/vec/bytes_avx512.h"

#include "kernels/cpu/probe/probe_body.h"
