/* Inputs for the kernel tests: reproducible numbers, stored matrices at odd addresses, and pools
 * with shuffled blocks whose unused slots are poisoned with NaN. Everything else is malloc'ed at
 * exact size, so that a sanitizer sees an access past the end. It is over 150 lines because every
 * suite of kernels wants some of it. */
#ifndef TESTS_KERNELS_KERNELS_UTIL_H
#define TESTS_KERNELS_KERNELS_UTIL_H

#include <criterion/criterion.h>
#include <math.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "kernels/ops.h"

#define KT_UNUSED __attribute__((unused))

/* uniform in [-1, 1); splitmix64 */
static KT_UNUSED float kt_uniform(uint64_t *state)
{
    uint64_t z = (*state += 0x9e3779b97f4a7c15u);
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return (float)((double)((z ^ z >> 31) >> 11) * 0x1p-52 - 1.0);
}

static KT_UNUSED int kt_below(uint64_t *state, int n)
{
    int v = (int)((kt_uniform(state) + 1) / 2 * (float)n);
    return v < n ? v : n - 1;
}

static KT_UNUSED float *kt_floats(size_t n, uint64_t seed)
{
    float *v = malloc(n * sizeof *v);
    for (size_t i = 0; i < n; i++)
        v[i] = kt_uniform(&seed);
    return v;
}

static KT_UNUSED float *kt_copy(const float *v, size_t n)
{
    return memcpy(malloc(n * sizeof *v), v, n * sizeof *v);
}

/* Whether a body makes use of being told that attention may round. */
static KT_UNUSED bool kt_rounds(const struct ops *ops)
{
    return strcmp(ops->name, "avx512_bf16") == 0 || strncmp(ops->name, "amx", 3) == 0;
}

struct kt_matrix {
    struct matrix m;
    void *memory;
};

/* [rows, cols] of `dtype`, `shift` bytes after an aligned address */
static KT_UNUSED struct kt_matrix kt_matrix_make(int rows, int cols, enum dtype dtype, int shift,
                                                 uint64_t seed)
{
    size_t n = (size_t)rows * (size_t)cols;
    float *values = kt_floats(n, seed);
    struct kt_matrix k = {.m = {.dtype = dtype, .rows = rows, .cols = cols}};
    k.memory = malloc(n * dtype_bytes(dtype) + (size_t)shift);
    k.m.data = (char *)k.memory + shift;
    dtype_convert((char *)k.memory + shift, dtype, values, DTYPE_F32, n);
    free(values);
    return k;
}

/* Two spellings of one result: fails at the first element that differs by more than absolute +
 * relative * |want|. */
struct kt_tolerance {
    double absolute, relative;
};

static KT_UNUSED void kt_near(const char *what, const float *got, const float *want, size_t n,
                              struct kt_tolerance t)
{
    for (size_t i = 0; i < n; i++) {
        double g = (double)got[i], w = (double)want[i];
        bool same =
            isnan(w) ? isnan(g) : g == w || fabs(g - w) <= t.absolute + t.relative * fabs(w);
        cr_assert(same, "%s: element %zu is %.9g, expected %.9g", what, i, g, w);
    }
}

/* Bit for bit. */
static KT_UNUSED void kt_same(const char *what, const float *got, const float *want, size_t n)
{
    for (size_t i = 0; i < n; i++)
        cr_assert(memcmp(&got[i], &want[i], sizeof got[i]) == 0,
                  "%s: element %zu is %.9g, expected the same bits as %.9g", what, i,
                  (double)got[i], (double)want[i]);
}

/* A batch of sequences: `start[s]` positions already stored, `count[s]` new rows. */
struct kt_batch {
    struct op_rows rows;
    int32_t *positions, *seq_of;
    int32_t **tables;
    int sequences;
};

#define KT_SEQUENCES_MAX 8

struct kt_spec {
    int sequences;
    int start[KT_SEQUENCES_MAX], count[KT_SEQUENCES_MAX];
};

/* Block tables are laid out backwards from the end of a pool of `blocks` blocks, interleaved
 * between sequences; a sequence's table is the same for every batch of `sequences` sequences. */
static KT_UNUSED struct kt_batch kt_batch_make(const struct kt_spec *spec, int block_tokens,
                                               int blocks)
{
    struct kt_batch b = {.sequences = spec->sequences};
    int tokens = 0, r = 0;
    for (int s = 0; s < spec->sequences; s++)
        tokens += spec->count[s];
    b.positions = malloc((size_t)tokens * sizeof *b.positions);
    b.seq_of = malloc((size_t)tokens * sizeof *b.seq_of);
    b.tables = malloc((size_t)spec->sequences * sizeof *b.tables);
    for (int s = 0; s < spec->sequences; s++) {
        int end = spec->start[s] + spec->count[s];
        int used = (end + block_tokens - 1) / block_tokens;
        b.tables[s] = malloc((size_t)(used ? used : 1) * sizeof **b.tables);
        for (int i = 0; i < used; i++) {
            b.tables[s][i] = blocks - 1 - (i * spec->sequences + s);
            cr_assert(b.tables[s][i] >= 0, "the test's pool is too small");
        }
        for (int i = 0; i < spec->count[s]; i++, r++) {
            b.positions[r] = spec->start[s] + i;
            b.seq_of[r] = s;
        }
    }
    b.rows = (struct op_rows){.positions = b.positions,
                              .seq_of = b.seq_of,
                              .block_tables = (const int32_t *const *)b.tables,
                              .tokens = tokens};
    return b;
}

static KT_UNUSED void kt_batch_free(struct kt_batch *b)
{
    for (int s = 0; s < b->sequences; s++)
        free(b->tables[s]);
    free(b->tables);
    free(b->positions);
    free(b->seq_of);
}

/* Whole pages that hold a pool, and one behind them. */
static KT_UNUSED size_t kt_pool_pages(const struct kv_layout *l)
{
    const size_t page = (size_t)sysconf(_SC_PAGESIZE);
    return (kv_pool_bytes(l) + page - 1) / page * page + page;
}

/* A pool of all ones bits: NaN in every dtype. Behind its last byte lies a page that nobody may
 * read, since bodies whose instructions are no C are not seen by a sanitizer in every build. */
static KT_UNUSED char *kt_pool_make(const struct kv_layout *l)
{
    const size_t page = (size_t)sysconf(_SC_PAGESIZE), pages = kt_pool_pages(l);
    char *at = mmap(NULL, pages, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    cr_assert(at != MAP_FAILED && mprotect(at + pages - page, page, PROT_NONE) == 0);
    return memset(at + pages - page - kv_pool_bytes(l), 0xff, kv_pool_bytes(l));
}

static KT_UNUSED void kt_pool_free(char *pool, const struct kv_layout *l)
{
    const size_t page = (size_t)sysconf(_SC_PAGESIZE), pages = kt_pool_pages(l);
    munmap(pool + kv_pool_bytes(l) + page - pages, pages);
}

#endif
