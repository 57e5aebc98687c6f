#include "base/rng.h"

#include <assert.h>
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <sys/random.h>

#define GOLDEN UINT64_C(0x9e3779b97f4a7c15)

uint64_t rng_mix(uint64_t x)
{
    x += GOLDEN;
    x = (x ^ (x >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    x = (x ^ (x >> 27)) * UINT64_C(0x94d049bb133111eb);
    return x ^ (x >> 31);
}

uint64_t rng_hash(uint64_t seed, uint64_t a, uint64_t b, uint64_t c)
{
    uint64_t h = rng_mix(seed);
    h = rng_mix(h ^ a);
    h = rng_mix(h ^ b);
    return rng_mix(h ^ c);
}

double rng_unit(uint64_t bits)
{
    return (double)(bits >> 11) * 0x1.0p-53;
}

struct rng rng_seed(uint64_t seed)
{
    return (struct rng){.state = seed};
}

uint64_t rng_next(struct rng *r)
{
    uint64_t x = rng_mix(r->state);
    r->state += GOLDEN;
    return x;
}

uint64_t rng_below(struct rng *r, uint64_t n)
{
    assert(n >= 1);
    /* Lemire, "Fast Random Integer Generation in an Interval", 2019: reject the short first stripe.
     */
    unsigned __int128 product = (unsigned __int128)rng_next(r) * n;
    if ((uint64_t)product < n) {
        uint64_t threshold = -n % n;
        while ((uint64_t)product < threshold)
            product = (unsigned __int128)rng_next(r) * n;
    }
    return (uint64_t)(product >> 64);
}

double rng_double(struct rng *r)
{
    return rng_unit(rng_next(r));
}

double rng_exponential(struct rng *r, double mean)
{
    return -mean * log1p(-rng_double(r));
}

uint64_t rng_entropy(void)
{
    uint64_t bits;
    ssize_t n;
    do
        n = getrandom(&bits, sizeof bits, 0);
    while (n < 0 && errno == EINTR);
    if (n != (ssize_t)sizeof bits)
        abort();
    return bits;
}
