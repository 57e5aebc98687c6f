/* Quantized vectors of a pool to rows of floats, compiled once per instruction set (see cpu.h):
 * what attention reads in their place; and vector by vector, where it multiplies them at once
 * (rows_widen()). The numbers are those of kv_vector_widen(), on every body. */
#ifndef KERNELS_CPU_ATTENTION_KV_WIDEN_BODY_H
#define KERNELS_CPU_ATTENTION_KV_WIDEN_BODY_H

#include "kernels/cpu/cpu.h"

struct kv_widen {
    const char *vectors; /* `count` of them that follow each other */
    enum dtype dtype;    /* quantized */
    size_t dim;          /* of a vector */
    size_t from, n;      /* elements that are wanted; from is even */
    int count;
    float *out; /* [count, n] */
};

/* What a group's elements are multiplied by, as kv_widen_load() gives them. */
INLINE float kv_widen_scale(const char *at, enum dtype d)
{
    return kv_load_bf16(at) * (d == DTYPE_FP8 ? KV_FP8_UNIT : 1);
}

/* LANES elements as they are stored, of fp8 in units. */
INLINE vec kv_widen_load(const char *p, enum dtype d)
{
    return d == DTYPE_INT4   ? vec_load_int4(p)
           : d == DTYPE_INT8 ? vec_load_int8(p)
                             : vec_load_fp8_units(p);
}

INLINE vec kv_widen_scaled(const char *p, enum dtype d, vec scale, vec least)
{
    vec v = kv_widen_load(p, d);
    if (d == DTYPE_INT4)
        return vec_fma(v, scale, least);
    return v * scale;
}

/* n elements of a group. d is a constant where this is inlined. */
INLINE void kv_widen_group(const char *codes, enum dtype d, const char *scale_at, size_t n,
                           float *out)
{
    vec scale = vec_set1(kv_widen_scale(scale_at, d));
    vec least = d == DTYPE_INT4 ? vec_set1(kv_load_bf16(scale_at + 2)) : vec_zero();
    size_t i = 0;
    for (; i + LANES <= n; i += LANES)
        vec_store(out + i, kv_widen_scaled(codes + kv_codes_bytes(d, i), d, scale, least));
    if (i < n) {
        char padded[LANES] = {0};
        memcpy(padded, codes + kv_codes_bytes(d, i), kv_codes_bytes(d, n - i));
        vec_store_n(out + i, kv_widen_scaled(padded, d, scale, least), (int)(n - i));
    }
}

INLINE void kv_widen_as(const struct kv_widen *w, enum dtype d)
{
    const size_t bytes = kv_vector_bytes(d, w->dim), end = w->from + w->n;
    const char *vector = w->vectors;
    float *out = w->out;
    for (int v = 0; v < w->count; v++, vector += bytes)
        for (size_t at = w->from, n; at < end; at += n, out += n) {
            n = kv_group(d) - at % kv_group(d); /* to the end of its group */
            n = end - at < n ? end - at : n;
            kv_widen_group(vector + kv_codes_bytes(d, at), d, vector + kv_scale_at(d, w->dim, at),
                           n, out);
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
