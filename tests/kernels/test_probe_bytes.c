/* How much memory a probe reads, on machines that this one is not. */
#include <criterion/criterion.h>

#include <stdint.h>

#include "kernels/probe.h"

#define MIB(n) ((size_t)(n) << 20)

Test(probe_bytes, hold_more_than_the_caches)
{
    static const size_t cases[][3] = {
        /* caches, memory left, bytes */
        {0, MIB(64000), MIB(256)},
        {MIB(32), MIB(64000), MIB(256)},
        {MIB(128), MIB(64000), MIB(256)},
        {MIB(300), MIB(64000), MIB(600)},
        {MIB(300) + 1, MIB(64000), MIB(600)},
        {MIB(300), MIB(4000), MIB(500)}, /* an eighth of what is left */
        {MIB(300), MIB(100), MIB(256)},  /* as much as it always took */
        {MIB(300), 0, MIB(256)},
        {MIB(2304), MIB(1 << 20), MIB(2048)},
        {SIZE_MAX, SIZE_MAX, MIB(2048)},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        cr_expect_eq(kernels_probe_bytes_for(cases[i][0], cases[i][1]), cases[i][2], "case %zu", i);
    size_t here = kernels_probe_bytes();
    cr_assert(here >= PROBE_BYTES_LEAST && here <= PROBE_BYTES_MOST && here % MIB(1) == 0);
}
