/* Quantized vectors of a pool to rows of floats, compiled once per instruction set (see cpu.h):
 * what attention reads in their place. The numbers are those of kv_vector_widen(), on every body.
 */
#ifndef KERNELS_CPU_KV_WIDEN_BODY_H
#define KERNELS_CPU_KV_WIDEN_BODY_H

#include "kernels/cpu/cpu.h"

struct kv_widen {
    const char *vectors; /* `count` of them that follow each other */
    enum dtype dtype;    /* quantized */
    size_t dim;          /* of a vector */
    size_t from, n;      /* elements that are wanted; from is a multiple of every group */
    int count;
    float *out; /* [count, n] */
};

/* LANES elements as they are stored. */
INLINE vec kv_widen_load(const char *p, enum dtype d)
{
    return d == DTYPE_INT4   ? vec_load_int4(p)
           : d == DTYPE_INT8 ? vec_load_int8(p)
                             : vec_load_fp8(p);
}

/* d is a constant where this is inlined. */
INLINE void kv_widen_group(const char *from, enum dtype d, vec scale, size_t n, float *out)
{
    size_t i = 0;
    for (; i + LANES <= n; i += LANES)
        vec_store(out + i, kv_widen_load(from + kv_scales_at(d, i), d) * scale);
    if (i < n) {
        char padded[LANES] = {0};
        memcpy(padded, from + kv_scales_at(d, i), kv_scales_at(d, n - i));
        vec_store_n(out + i, kv_widen_load(padded, d) * scale, (int)(n - i));
    }
}

INLINE void kv_widen_as(const struct kv_widen *w, enum dtype d)
{
    const size_t bytes = kv_vector_bytes(d, w->dim), group = kv_group(d), end = w->from + w->n;
    const char *vector = w->vectors;
    float *out = w->out;
    for (int v = 0; v < w->count; v++, vector += bytes)
        for (size_t at = w->from, n; at < end; at += n, out += n) {
            float scale = kv_vector_scale(vector + kv_scales_at(d, w->dim), at / group);
            n = end - at < group ? end - at : group;
            kv_widen_group(vector + kv_scales_at(d, at), d, vec_set1(scale), n, out);
        }
}

static __attribute__((noinline)) void kv_widen(const struct kv_widen *w)
{
    if (w->dtype == DTYPE_INT4)
        kv_widen_as(w, DTYPE_INT4);
    else if (w->dtype == DTYPE_INT8)
        kv_widen_as(w, DTYPE_INT8);
    else
        kv_widen_as(w, DTYPE_FP8);
}

#endif
