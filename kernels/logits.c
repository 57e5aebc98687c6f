#include "kernels/logits.h"

#include <stddef.h>

#include "kernels/cpu/cpu.h"
#include "kernels/cpu/rows/logits.h"

const struct logits_body *logits_body_at(int i)
{
    static const struct {
        const struct logits_body *body;
        bool (*supported)(void);
    } bodies[] = {
#if defined(__x86_64__)
        {&logits_avx512, cpu_has_avx512},
        {&logits_avx2, cpu_has_avx2},
#endif
        {&logits_portable, cpu_has_portable},
    };
    for (size_t b = 0; b < sizeof bodies / sizeof bodies[0]; b++)
        if (bodies[b].supported() && i-- == 0)
            return bodies[b].body;
    return NULL;
}

struct logits_peak logits_find_peak(const float *x, int32_t n)
{
    return logits_body_at(0)->find_peak(x, n);
}

int32_t logits_skip(const float *x, int32_t n, int32_t from, float than)
{
    return logits_body_at(0)->skip(x, n, from, than);
}

double logits_weigh(const float *x, int32_t n, const struct logits_scale *s)
{
    return logits_body_at(0)->weigh(x, n, s);
}

/* One lane of what the bodies compute. */
double logits_weight(float logit, const struct logits_scale *s)
{
    double y = (double)logit - (double)s->max;
    if (s->temperature != 1)
        y /= s->temperature;
    return y >= LOGITS_NEGLIGIBLE ? logits_exp(y) : 0;
}
