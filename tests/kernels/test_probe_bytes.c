/* How much memory a probe reads, on machines that this one is not; which of two probes counts. */
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
    cr_assert_eq(kernels_probe_bytes(), here);
}

/* What more bytes were read at is the figure: fewer may have been a cache's. */
Test(probe_bytes, of_two_probes_that_of_more_bytes_counts)
{
    const struct kernels_probe small = {
        .gflops = 10, .gbytes_per_second = 90, .read_bytes = MIB(256)};
    struct kernels_probe large = {.gflops = 9, .gbytes_per_second = 20, .read_bytes = MIB(600)};
    const struct kernels_probe *both[] = {&small, &large};
    for (int i = 0; i < 2; i++) {
        struct kernels_probe best = kernels_probe_best(both[i], both[1 - i]);
        cr_expect_eq(best.gflops, 10);
        cr_expect_eq(best.gbytes_per_second, 20);
        cr_expect_eq(best.read_bytes, MIB(600));
    }
    large.read_bytes = MIB(256);
    for (int i = 0; i < 2; i++)
        cr_expect_eq(kernels_probe_best(both[i], both[1 - i]).gbytes_per_second, 90);
}
