/* The vector exponential of every body against double: at most 2 units in the last place, specials
 * as in C. */
#include <criterion/criterion.h>
#include <math.h>
#include <stdint.h>
#include <string.h>

#include "kernels/cpu/cpu.h"
#include "kernels/exp_bodies.h"

static const struct {
    const char *name;
    bool (*supported)(void);
    void (*exp)(float *out, const float *x, size_t n);
} bodies[] = {
    {"portable", cpu_has_portable, exp_floats_portable},
#if defined(__x86_64__)
    {"avx2", cpu_has_avx2, exp_floats_avx2},
    {"avx512", cpu_has_avx512, exp_floats_avx512},
#endif
};

#define BODIES (sizeof bodies / sizeof bodies[0])

static double ulps(float got, double want)
{
    float near = (float)want;
    double ulp = (double)nextafterf(near, INFINITY) - (double)near;
    return fabs((double)got - want) / ulp;
}

/* Every 61st float of [-103, 88.7], denormal results included. */
Test(exp, within_two_ulps)
{
    enum { N = 1021 };
    float x[N], y[N];
    for (size_t b = 0; b < BODIES; b++) {
        double worst = 0;
        float at = 0;
        if (!bodies[b].supported())
            continue;
        for (uint32_t sign = 0; sign < 2; sign++) {
            float limit = sign ? 103.0f : 88.7f;
            uint32_t bits = sign << 31 | 0x33000000, last;
            memcpy(&last, &limit, sizeof last);
            last |= sign << 31;
            while (bits <= last) {
                for (int i = 0; i < N; i++, bits += 61)
                    memcpy(&x[i], bits <= last ? &bits : &last, sizeof x[i]);
                bodies[b].exp(y, x, N);
                for (int i = 0; i < N; i++) {
                    double u = ulps(y[i], exp((double)x[i]));
                    if (u > worst) {
                        worst = u;
                        at = x[i];
                    }
                }
            }
        }
        cr_log_info("%s: at most %.3f ulp, at %.9g", bodies[b].name, worst, (double)at);
        cr_assert_leq(worst, 2, "%s: %.3f ulp at %.9g", bodies[b].name, worst, (double)at);
    }
}

Test(exp, special_values)
{
    static const float x[] = {0,     -0.0f, INFINITY, -INFINITY, 89,
                              1e30f, -104,  -1e30f,   1e-40f,    -3.4e38f};
    static const float want[] = {1, 1, INFINITY, 0, INFINITY, INFINITY, 0, 0, 1, 0};
    float y[17] = {0}, nan[17];
    for (size_t b = 0; b < BODIES; b++) {
        if (!bodies[b].supported())
            continue;
        bodies[b].exp(y, x, 10);
        for (int i = 0; i < 10; i++)
            cr_assert_eq(y[i], want[i], "%s: exp(%g) is %g", bodies[b].name, (double)x[i],
                         (double)y[i]);
        for (int i = 0; i < 17; i++)
            nan[i] = i % 2 ? NAN : 1;
        bodies[b].exp(y, nan, 17);
        for (int i = 0; i < 17; i++)
            cr_assert_eq(isnan(y[i]) != 0, i % 2, "%s: NaN at %d", bodies[b].name, i);
    }
}

/* The same bits in a whole vector and in a tail. */
Test(exp, tails_are_the_same_function)
{
    float x[37], all[37], one;
    for (int i = 0; i < 37; i++)
        x[i] = (float)(i - 30) * 1.7f;
    for (size_t b = 0; b < BODIES; b++) {
        if (!bodies[b].supported())
            continue;
        bodies[b].exp(all, x, 37);
        for (int i = 0; i < 37; i++) {
            bodies[b].exp(&one, &x[i], 1);
            cr_assert(memcmp(&one, &all[i], sizeof one) == 0, "%s: %d", bodies[b].name, i);
        }
    }
}
