/* What is timed, in this order: of an op whose calls may take long the small shapes come first,
 * for few rows and for many, since the time of a row says how long the next one would take
 * (kernels/bench.h). The first of all is small enough for any body. */
#include "kernels/bench/job.h"

#define GEMM .op = &bench_gemm
#define GATED .op = &bench_gated
#define MIXTURE .op = &bench_mixture
#define ATTENTION .op = &bench_attention
#define OLMOE .a = 1024, .b = 2048, .experts = 64, .top_k = 8
#define FULL .thorough = true
#define SHAPE(m, x, y, z) .tokens = (m), .a = (x), .b = (y), .c = (z)

const struct bench_shape bench_shapes[] = {
    {GEMM, SHAPE(1, 512, 512, 0)},
    {GEMM, SHAPE(64, 512, 512, 0)},
    {GEMM, SHAPE(1, 2048, 2048, 0)},
    {GEMM, SHAPE(1, 8192, 2048, 0), FULL},
    {GEMM, SHAPE(8, 2048, 2048, 0)},
    {GEMM, SHAPE(64, 2048, 2048, 0)},
    {GEMM, SHAPE(64, 2048, 8192, 0), FULL},
    {GEMM, SHAPE(256, 2048, 2048, 0), FULL},
    {GEMM, SHAPE(512, 2048, 2048, 0), FULL},
    {GEMM, SHAPE(512, 8192, 2048, 0), FULL},
    {GEMM, SHAPE(1024, 2048, 2048, 0), FULL},
    {GEMM, SHAPE(2048, 2048, 2048, 0), FULL},

    {GATED, SHAPE(64, 256, 256, 0)},
    {GATED, SHAPE(64, 2048, 2048, 0)},
    {GATED, SHAPE(64, 8192, 2048, 0), FULL},
    {GATED, SHAPE(256, 8192, 2048, 0), FULL},
    {GATED, SHAPE(512, 8192, 2048, 0), FULL},
    {GATED, SHAPE(1024, 8192, 2048, 0), FULL},

    {MIXTURE, .tokens = 1, .a = 128, .b = 256, .experts = 8, .top_k = 2},
    {MIXTURE, .tokens = 16, .a = 256, .b = 512, .experts = 8, .top_k = 2},
    {MIXTURE, .tokens = 1, OLMOE, FULL},
    {MIXTURE, .tokens = 8, OLMOE},
    {MIXTURE, .tokens = 32, OLMOE, FULL},
    {MIXTURE, .tokens = 512, OLMOE, FULL},

    /* decoding by depth, by queries of a kv head, and in batches */
    {ATTENTION, SHAPE(1, 8, 2, 64), .start = 255},
    {ATTENTION, SHAPE(1, 32, 8, 64), .start = 2047, .few = true, FULL},
    {ATTENTION, SHAPE(1, 32, 8, 64), .start = 8191, FULL},
    {ATTENTION, SHAPE(1, 8, 8, 128), .start = 8191, .few = true, FULL},
    {ATTENTION, SHAPE(1, 14, 2, 64), .start = 8191, .few = true, FULL},
    {ATTENTION, SHAPE(1, 16, 1, 128), .start = 8191, .few = true, FULL},
    {ATTENTION, SHAPE(8, 32, 8, 64), .start = 1023, .sequences = 8},
    {ATTENTION, SHAPE(16, 32, 8, 64), .start = 2047, .sequences = 16, .few = true, FULL},
    {ATTENTION, SHAPE(32, 32, 8, 64), .start = 2047, .sequences = 32, .few = true, FULL},
    /* drafts */
    {ATTENTION, SHAPE(2, 32, 8, 64), .start = 8190, .few = true, FULL},
    {ATTENTION, SHAPE(4, 32, 8, 64), .start = 8188, .few = true, FULL},
    {ATTENTION, SHAPE(8, 32, 8, 64), .start = 8184, .few = true, FULL},
    /* a prompt's chunks */
    {ATTENTION, SHAPE(64, 8, 2, 64), .start = 192},
    {ATTENTION, SHAPE(128, 32, 8, 64), .start = 384},
    {ATTENTION, SHAPE(128, 32, 8, 64), .start = 2048, FULL},
    {ATTENTION, SHAPE(512, 32, 8, 64), .start = 2048, .few = true, FULL},
    {ATTENTION, SHAPE(128, 32, 8, 64), .start = 8192, FULL},
    /* windows, with sinks as GPT-OSS has them and without */
    {ATTENTION, SHAPE(1, 64, 8, 64), .start = 8191, .window = 128, .sinks = true, .few = true},
    {ATTENTION, SHAPE(1, 8, 4, 256), .start = 8191, .window = 4096, .few = true, FULL},
    {ATTENTION, SHAPE(128, 64, 8, 64), .start = 2048, .window = 128, .sinks = true, .few = true,
     FULL},
    /* latents in absorbed form (DeepSeek) */
    {ATTENTION, SHAPE(1, 16, 1, 576), .start = 2047, .out_dim = 512, .few = true},
    {ATTENTION, SHAPE(1, 16, 1, 576), .start = 8191, .out_dim = 512, FULL},
    {ATTENTION, SHAPE(8, 16, 1, 576), .start = 2047, .sequences = 8, .out_dim = 512, .few = true,
     FULL},
    {ATTENTION, SHAPE(1, 128, 1, 576), .start = 2047, .out_dim = 512, .few = true, FULL},
    {ATTENTION, SHAPE(128, 16, 1, 576), .start = 384, .out_dim = 512, .few = true, FULL},

    {.op = &bench_embed, .tokens = 16, .a = 2048},
    {.op = &bench_rmsnorm, .tokens = 16, .a = 2048},
    {.op = &bench_rope, .tokens = 16, .a = 32, .b = 64},
    {.op = &bench_glu, .tokens = 16, .a = 8192},
    {.op = &bench_quantize, .tokens = 16, .a = 8192},
    {.op = &bench_round, .tokens = 16, .a = 8192},
    {.op = &bench_route, .tokens = 16, .experts = 64, .top_k = 8},
    {.op = &bench_route, .tokens = 16, .experts = 256, .top_k = 8, .groups = 8},
    {.op = &bench_combine, .tokens = 16, .a = 2048, .top_k = 8},
    {.op = &bench_softcap, .tokens = 1, .a = 256000},
    {.op = &bench_peak, .tokens = 1, .a = 128256},
    {.op = &bench_skip, .tokens = 1, .a = 128256},
    {.op = &bench_weigh, .tokens = 1, .a = 128256},
    /* last: what it stores is in the buffer then */
    {.op = &bench_kv_store, .tokens = 16, .a = 8, .b = 64},
};
const size_t bench_shapes_n = sizeof bench_shapes / sizeof bench_shapes[0];
