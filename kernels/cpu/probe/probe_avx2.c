#include "kernels/cpu/vec/bytes_avx2.h"

#include "kernels/cpu/probe/probe_body.h"
