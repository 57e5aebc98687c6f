#include <math.h>
#include <string.h>

#include "kernels/ref/ref.h"

/* n elements from column k on, of `spans` spans with one scale. */
static void quantize_spans(const float *row, const int32_t *order, size_t k, size_t n,
                           const struct rows8 *out, size_t spans)
{
    const size_t span = k / PACKED_SPAN;
    int8_t *q = out->q + k;
    float most = 0, wrong = 0;
    for (size_t i = 0; i < n; i++) {
        const float x = row[order ? (size_t)order[i] : k + i];
        most = fmaxf(most, fabsf(x));
        wrong += x * 0.0f; /* NaN where x is none, or infinite */
    }
    memset(q, 0, spans * PACKED_SPAN);
    memset(out->sum + 2 * span, 0, 2 * spans * sizeof *out->sum);
    for (size_t s = span; s < span + spans; s++)
        out->scale[s] = (most < QUANTIZE_LEAST ? 0 : most / 127.0f) + wrong;
    if (isnan(wrong) || most < QUANTIZE_LEAST)
        return;
    for (size_t i = 0; i < n; i++) {
        float v = nearbyintf(row[order ? (size_t)order[i] : k + i] * (127.0f / most));
        q[i] = (int8_t)fminf(fmaxf(v, -127), 127);
        out->sum[2 * span + i / (PACKED_SPAN / 2)] += q[i];
    }
}

void ref_quantize(const struct op_quantize *a, int part, int parts)
{
    const size_t stride = ref_stride(a->x_stride, a->dim), dim = (size_t)a->dim;
    const size_t all = (size_t)a->out.spans;
    const size_t spans = a->out.whole ? all : a->out.paired ? 2 : 1, width = spans * PACKED_SPAN;
    int32_t begin, end;
    ref_split(a->tokens, part, parts, &begin, &end);
    for (size_t m = (size_t)begin; m < (size_t)end; m++) {
        const struct rows8 row = rows8_from(&a->out, m);
        const float *x = a->x + (a->row ? (size_t)a->row[m] : m) * stride;
        for (size_t s = 0; s < all; s += spans) {
            const size_t k = s * PACKED_SPAN, n = dim - k < width ? dim - k : width;
            quantize_spans(x, a->order ? a->order + k : NULL, k, n, &row, spans);
        }
    }
}
