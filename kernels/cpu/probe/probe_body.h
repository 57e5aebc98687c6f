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

/* The same of bytes, in pairs that 16 bits hold: the fastest that there is without dot products.
 * Full bytes, whose pairs 16 bits do not hold, come to half of it. */
#if defined(BYTES_CHAIN)
double BODY(probe_bytes)(int64_t rounds)
{
    byte_vec v[PROBE_CHAINS];
    const int8_t ones[4] = {1, 1, 1, 1};
    byte_vec x = chain_x_of(ones);
    UNROLL
    for (int i = 0; i < PROBE_CHAINS; i++)
        v[i] = chain_zero();
    for (int64_t r = 0; r < rounds; r++) {
        UNROLL
        for (int i = 0; i < PROBE_CHAINS; i++) {
            __asm__("" : "+v"(x)); /* another one each time, for all the compiler knows */
            v[i] = chain_dot(v[i], x, x);
        }
    }
    ivec sum = ivec_set1(0);
    UNROLL
    for (int i = 0; i < PROBE_CHAINS; i++)
        sum = chain_sum(sum, v[i]);
    volatile float sink = vec_reduce_add(vec_of_int(sum));
    (void)sink;
    return 2.0 * (double)rounds * PROBE_CHAINS * LANES * 4;
}
#endif

#define PROBE_RUN ((size_t)64 << 10) /* bytes of a stream before it goes on elsewhere */
#define PROBE_TURN ((size_t)1 << 10) /* bytes of one before the next has its turn */

INLINE void probe_turn(const char *at, vec v[8])
{
    enum { STEP = 8 * LANES * sizeof(float) };
    _Static_assert(PROBE_TURN % STEP == 0, "a turn of whole steps");
    for (size_t step = 0; step < PROBE_TURN; step += STEP) {
        UNROLL
        for (int i = 0; i < 8; i++)
            v[i] = v[i] + vec_load(at + step + (size_t)i * LANES * sizeof(float));
    }
}

/* Reads `data`, up to less than a turn of each stream, and returns how many bytes that was: so many
 * runs side by side. Which number of them memory gives fastest is another on each machine, and on
 * each day. */
double BODY(probe_read)(const void *data, size_t bytes, int streams)
{
    const size_t least = (size_t)streams * PROBE_TURN;
    const char *at = data;
    size_t left = bytes;
    vec v[8];
    UNROLL
    for (int i = 0; i < 8; i++)
        v[i] = vec_zero();
    while (left >= least) {
        const size_t most = left / least * PROBE_TURN, run = most < PROBE_RUN ? most : PROBE_RUN;
        for (size_t turn = 0; turn < run; turn += PROBE_TURN)
            for (size_t s = 0; s < (size_t)streams; s++)
                probe_turn(at + s * run + turn, v);
        at += run * (size_t)streams;
        left -= run * (size_t)streams;
    }
    vec sum = vec_zero();
    UNROLL
    for (int i = 0; i < 8; i++)
        sum = sum + v[i];
    volatile float sink = vec_reduce_add(sum);
    (void)sink;
    return (double)(bytes - left);
}

#endif
