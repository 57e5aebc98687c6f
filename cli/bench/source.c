#include "cli/bench/source.h"

#include <math.h>

#include "base/clock.h"

static double normal(struct rng *r)
{
    double u = 1 - rng_double(r), v = rng_double(r);
    return sqrt(-2 * log(u)) * cos(6.283185307179586 * v);
}

double bench_gamma(struct rng *r, double shape, double scale)
{
    if (shape == 1)
        return rng_exponential(r, scale);
    if (shape < 1) { /* boosted: Gamma(a) = Gamma(a + 1) U^(1/a) */
        double u = 1 - rng_double(r);
        return bench_gamma(r, shape + 1, scale) * pow(u, 1 / shape);
    }
    double d = shape - 1.0 / 3, c = 1 / sqrt(9 * d);
    for (;;) {
        double x = normal(r), v = 1 + c * x;
        if (v <= 0)
            continue;
        v = v * v * v;
        double u = 1 - rng_double(r);
        if (log(u) < 0.5 * x * x + d - d * v + d * log(v))
            return d * v * scale;
    }
}

static int32_t at_most(int32_t v, int32_t bound)
{
    return bound > 0 && v > bound ? bound : v;
}

bool bench_source_next(struct bench_source *s, struct bench_item *out)
{
    bool own_times = s->trace.n > 0 && s->trace.timed && !s->closed && s->rate <= 0;
    if (s->requests > 0 && s->next >= s->requests)
        return false;
    if (own_times && s->next >= s->trace.n)
        return false;
    if (s->trace.n > 0) {
        *out = s->trace.items[s->next % s->trace.n];
        out->input_tokens = at_most(out->input_tokens, s->input_tokens);
        out->output_tokens = at_most(out->output_tokens, s->output_tokens);
    } else {
        *out =
            (struct bench_item){.input_tokens = s->input_tokens, .output_tokens = s->output_tokens};
    }
    if (own_times) {
        out->at_ns = (int64_t)((double)out->at_ns / s->speed);
    } else if (s->closed) {
        out->at_ns = 0;
    } else {
        /* The first request comes after an interval too: a rate starts nowhere in particular. */
        s->at_s += bench_gamma(&s->rng, s->burstiness, 1 / (s->rate * s->burstiness));
        out->at_ns = (int64_t)(s->at_s * 1e9);
    }
    s->next++;
    return true;
}

void bench_source_fini(struct bench_source *s)
{
    bench_trace_fini(&s->trace);
}
