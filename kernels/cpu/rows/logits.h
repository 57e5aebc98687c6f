/* The bodies of kernels/logits.h, and the exponential that they share. */
#ifndef KERNELS_CPU_ROWS_LOGITS_H
#define KERNELS_CPU_ROWS_LOGITS_H

#include <string.h>

#include "kernels/logits.h"

extern const struct logits_body logits_portable, logits_avx2, logits_avx512;

#define LOGITS_LOG2E 0x1.71547652b82fep+0
#define LOGITS_LN2_HIGH 0x1.62e42feep-1 /* its low bits are zero: k times it is exact */
#define LOGITS_LN2_LOW 0x1.a39ef35793c76p-33
#define LOGITS_ROUND 0x1.8p52 /* added: the integer is in the low bits */
#define LOGITS_TERMS 13

/* 1/i!: the series is as exact as a double where |r| <= ln2/2. */
static const double logits_term[LOGITS_TERMS + 1] = {1.0,
                                                     1.0,
                                                     1.0 / 2,
                                                     1.0 / 6,
                                                     1.0 / 24,
                                                     1.0 / 120,
                                                     1.0 / 720,
                                                     1.0 / 5040,
                                                     1.0 / 40320,
                                                     1.0 / 362880,
                                                     1.0 / 3628800,
                                                     1.0 / 39916800,
                                                     1.0 / 479001600,
                                                     1.0 / 6227020800.0};

/* e^y to about 1 ulp, LOGITS_NEGLIGIBLE <= y <= 0: y = k ln2 + r, a series in r, and 2^k. Products
 * and sums are rounded one by one, here as in the vectors, so that all CPUs agree. */
static inline double logits_exp(double y)
{
    double at = y * LOGITS_LOG2E + LOGITS_ROUND, k = at - LOGITS_ROUND;
    double r = y - k * LOGITS_LN2_HIGH - k * LOGITS_LN2_LOW, p = logits_term[LOGITS_TERMS], power;
    uint64_t bits;
    for (int i = LOGITS_TERMS - 1; i >= 0; i--)
        p = p * r + logits_term[i];
    memcpy(&bits, &at, sizeof bits);
    bits = (bits + 1023) << 52;
    memcpy(&power, &bits, sizeof power);
    return p * power;
}

#endif
