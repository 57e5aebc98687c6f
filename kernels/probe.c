#include "kernels/probe.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/clock.h"
#include "kernels/cpu/cpu.h"

#define ROUNDS 8      /* of reading two with each number of streams */
#define STREAMS_LOG 3 /* reading is tried with 1, 2, 4 and 8 streams */
#define PROBE_ROUND_NS (20 * NS_PER_MS)
#define CACHE_BYTES ((size_t)512 << 10) /* of each member: a half of common second-level caches */
#define WAKES 31
#define BARRIERS 1000

/* One round: every member calls `work` again and again until the time is over. */
struct round {
    double (*work)(const struct round *r, int part, int parts);
    double (*flops)(int64_t rounds);
    double (*tiles)(int64_t rounds, bool from_cache);
    double (*read)(const void *data, size_t bytes, int streams);
    int streams;
    char *buffer;
    size_t bytes;
    bool from_cache;
    double done[TEAM_MAX]; /* of each member */
    int64_t end_ns;
};

static double do_flops(const struct round *r, int part, int parts)
{
    (void)part, (void)parts;
    return r->flops(1 << 16);
}

static double do_tiles(const struct round *r, int part, int parts)
{
    (void)part, (void)parts;
    return r->tiles(1 << 12, r->from_cache);
}

static double do_read(const struct round *r, int part, int parts)
{
    size_t begin, end;
    team_split(r->bytes, 4096, part, parts, &begin, &end);
    return r->read(r->buffer + begin, end - begin, r->streams);
}

static double do_copy(const struct round *r, int part, int parts)
{
    size_t begin, end, half = r->bytes / 2;
    team_split(half, 4096, part, parts, &begin, &end);
    memcpy(r->buffer + half + begin, r->buffer + begin, end - begin);
    return (double)(end - begin);
}

static double do_cache(const struct round *r, int part, int parts)
{
    (void)parts;
    return r->read(r->buffer + (size_t)part * CACHE_BYTES % r->bytes, CACHE_BYTES, 1);
}

static void round_body(void *arg, int part, int parts)
{
    struct round *r = arg;
    double done = 0;
    do
        done += r->work(r, part, parts);
    while (clock_now_ns() < r->end_ns);
    r->done[part] = done;
}

/* The best rate of several rounds, per second; 0 where there is no such instruction. */
static double best_rate(struct team *team, struct round *r)
{
    double best = 0;
    for (int i = 0; i < ROUNDS; i++) {
        double done = 0;
        r->streams = 1 << i % (STREAMS_LOG + 1);
        int64_t begin = clock_now_ns();
        r->end_ns = begin + PROBE_ROUND_NS;
        team_run(team, round_body, r);
        double seconds = (double)(clock_now_ns() - begin) * 1e-9;
        for (int m = 0; m < team_size(team); m++)
            done += r->done[m];
        if (done / seconds > best)
            best = done / seconds;
    }
    return best;
}

static double flops_rate(struct team *team, double (*flops)(int64_t))
{
    struct round r = {.work = do_flops, .flops = flops};
    return flops ? best_rate(team, &r) * 1e-9 : 0;
}

static double tiles_rate(struct team *team, double (*tiles)(int64_t, bool), bool from_cache)
{
    struct round r = {.work = do_tiles, .tiles = tiles, .from_cache = from_cache};
    return tiles ? best_rate(team, &r) * 1e-9 : 0;
}

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void nothing(void *arg, int part, int parts)
{
    (void)arg, (void)part, (void)parts;
}

static void barriers(void *arg, int part, int parts)
{
    (void)part, (void)parts;
    for (int i = 0; i < BARRIERS; i++)
        team_barrier(arg);
}

/* Long enough that the members have gone to sleep. */
static double wake_us(struct team *team)
{
    const struct timespec pause = {.tv_nsec = 3 * NS_PER_MS};
    double us[WAKES];
    for (int i = 0; i < WAKES; i++) {
        nanosleep(&pause, NULL);
        int64_t begin = clock_now_ns();
        team_run(team, nothing, NULL);
        us[i] = (double)(clock_now_ns() - begin) * 1e-3;
    }
    qsort(us, WAKES, sizeof us[0], compare);
    return us[WAKES / 2];
}

static double barrier_us(struct team *team)
{
    double us[ROUNDS];
    for (int i = 0; i < ROUNDS; i++) {
        int64_t begin = clock_now_ns();
        team_run(team, barriers, team);
        us[i] = (double)(clock_now_ns() - begin) * 1e-3 / BARRIERS;
    }
    qsort(us, ROUNDS, sizeof us[0], compare);
    return us[ROUNDS / 2];
}

/* The instructions that this CPU has; NULL: none. */
struct instructions {
    double (*fma)(int64_t), (*dot_bf16)(int64_t), (*dot_int8)(int64_t);
    double (*amx_bf16)(int64_t, bool), (*amx_int8)(int64_t, bool);
    double (*read)(const void *, size_t, int);
};

static struct instructions instructions_of_cpu(void)
{
    struct instructions i = {.fma = probe_flops_portable, .read = probe_read_portable};
#if defined(__x86_64__)
    if (cpu_has_avx512()) {
        i.fma = probe_flops_avx512;
        i.read = probe_read_avx512;
        i.dot_int8 = cpu_has_vnni() ? NULL : probe_bytes_avx512; /* which the next may have */
    } else if (cpu_has_avx2()) {
        i.fma = probe_flops_avx2;
        i.read = probe_read_avx2;
        i.dot_int8 = probe_bytes_avx2;
    }
#endif
#if defined(BATON_AMX)
    if (cpu_has_bf16())
        i.dot_bf16 = probe_dot_bf16;
    if (cpu_has_vnni())
        i.dot_int8 = probe_dot_int8;
    if (cpu_amx_permit()) {
        i.amx_bf16 = probe_amx_bf16;
        i.amx_int8 = probe_amx_int8;
    }
#endif
    return i;
}

static struct kernels_probe measure_roof(struct team *team, const struct instructions *i,
                                         struct round memory)
{
    struct kernels_probe p = {.gflops = flops_rate(team, i->fma), .read_bytes = memory.bytes};
    p.bf16_gflops =
        fmax(p.gflops, fmax(flops_rate(team, i->dot_bf16), tiles_rate(team, i->amx_bf16, false)));
    p.int8_gops =
        fmax(p.gflops, fmax(flops_rate(team, i->dot_int8), tiles_rate(team, i->amx_int8, false)));
    memory.work = do_read;
    p.gbytes_per_second = best_rate(team, &memory) * 1e-9;
    memory.work = do_cache;
    p.cache_gbytes_per_second = best_rate(team, &memory) * 1e-9;
    return p;
}

struct kernels_probe kernels_probe_run(struct team *team, void *buffer, size_t bytes)
{
    const struct instructions i = instructions_of_cpu();
    return measure_roof(team, &i, (struct round){.read = i.read, .buffer = buffer, .bytes = bytes});
}

struct kernels_probe kernels_probe_best(const struct kernels_probe *a,
                                        const struct kernels_probe *b)
{
    const struct kernels_probe *memory = a;
    if (b->read_bytes > a->read_bytes ||
        (b->read_bytes == a->read_bytes && b->gbytes_per_second > a->gbytes_per_second))
        memory = b;
    return (struct kernels_probe){.gflops = fmax(a->gflops, b->gflops),
                                  .bf16_gflops = fmax(a->bf16_gflops, b->bf16_gflops),
                                  .int8_gops = fmax(a->int8_gops, b->int8_gops),
                                  .gbytes_per_second = memory->gbytes_per_second,
                                  .cache_gbytes_per_second =
                                      fmax(a->cache_gbytes_per_second, b->cache_gbytes_per_second),
                                  .read_bytes = memory->read_bytes};
}

struct machine_limits machine_probe(struct team *team, void *buffer, size_t bytes)
{
    const struct instructions i = instructions_of_cpu();
    struct round memory = {.read = i.read, .buffer = buffer, .bytes = bytes};
    struct machine_limits l = {.threads = team_size(team), .roof = measure_roof(team, &i, memory)};
    l.bf16_dot_gflops = flops_rate(team, i.dot_bf16);
    l.int8_dot_gops = flops_rate(team, i.dot_int8);
    l.amx_bf16_gflops = tiles_rate(team, i.amx_bf16, false);
    l.amx_bf16_l1_gflops = tiles_rate(team, i.amx_bf16, true);
    l.amx_int8_gops = tiles_rate(team, i.amx_int8, false);
    l.amx_int8_l1_gops = tiles_rate(team, i.amx_int8, true);
    memory.work = do_copy;
    l.copy_gbytes_per_second = best_rate(team, &memory) * 1e-9;
    l.wake_us = wake_us(team);
    l.barrier_us = barrier_us(team);
    return l;
}
