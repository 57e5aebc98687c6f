/* Counter-based randomness: a draw is a pure function of what it is for, so a sequence can be
 * replayed anywhere (LAW 5). The mixer is SplitMix64's finaliser (Steele et al., OOPSLA 2014)
 * applied over the words in turn. struct rng is a plain stream for tests, simulators and load
 * generators. Thread: any; no global state. */
#ifndef BASE_RNG_H
#define BASE_RNG_H

#include <stdint.h>

uint64_t rng_mix(uint64_t x);
/* hash(seed, a, b, c): uniform 64 bits */
uint64_t rng_hash(uint64_t seed, uint64_t a, uint64_t b, uint64_t c);
/* to [0, 1) with 53 bits */
double rng_unit(uint64_t bits);

struct rng {
    uint64_t state;
};
struct rng rng_seed(uint64_t seed);
uint64_t rng_next(struct rng *r);
uint64_t rng_below(struct rng *r, uint64_t n); /* [0, n), n >= 1, unbiased */
double rng_double(struct rng *r);              /* [0, 1) */
double rng_exponential(struct rng *r, double mean);
/* 64 bits from the kernel, for seeds and tickets; aborts when the kernel has none. */
uint64_t rng_entropy(void);

#endif
