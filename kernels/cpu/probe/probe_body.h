/* What the machine can do at most with this instruction set: multiply-adds from registers, and
 * reading memory. */
#ifndef KERNELS_CPU_PROBE_PROBE_BODY_H
#define KERNELS_CPU_PROBE_PROBE_BODY_H

#define PROBE_CHAINS 12 /* more than latency x units: the units never wait */

/* Runs `rounds` rounds of independent multiply-adds and returns how many floating-point operations
 * that was. */
double BODY(probe_flops)(int64_t rounds)
{
    vec v[PROBE_CHAINS], factor = vec_set1(0.999f);
    UNROLL
    for (int i = 0; i < PROBE_CHAINS; i++)
        v[i] = vec_set1((float)i);
    for (int64_t r = 0; r < rounds; r++) {
        UNROLL
        for (int i = 0; i < PROBE_CHAINS; i++)
            v[i] = vec_fma(v[i], factor, factor);
    }
    vec sum = vec_zero();
    UNROLL
    for (int i = 0; i < PROBE_CHAINS; i++)
        sum = sum + v[i];
    volatile float sink = vec_reduce_add(sum);
    (void)sink;
    return 2.0 * (double)rounds * PROBE_CHAINS * LANES;
}

/* Reads whole vectors of `data` and returns how many bytes that was. */
double BODY(probe_read)(const void *data, size_t bytes)
{
    enum { STRIDE = 8 * LANES * sizeof(float) };
    const char *at = data;
    vec v[8];
    UNROLL
    for (int i = 0; i < 8; i++)
        v[i] = vec_zero();
    for (size_t done = 0; done + STRIDE <= bytes; done += STRIDE) {
        UNROLL
        for (int i = 0; i < 8; i++)
            v[i] = v[i] + vec_load(at + done + (size_t)i * LANES * sizeof(float));
    }
    vec sum = vec_zero();
    UNROLL
    for (int i = 0; i < 8; i++)
        sum = sum + v[i];
    volatile float sink = vec_reduce_add(sum);
    (void)sink;
    return (double)(bytes / STRIDE * STRIDE);
}

#endif
