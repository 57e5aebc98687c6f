/* `baton bench WHAT`: the benchmarks. */
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "cli/bench/bench.h"
#include "cli/commands.h"

static const struct bench {
    const char *name;
    int (*run)(int argc, char **argv);
    const char *help;
} benches[] = {
    {"serve", bench_serve, "load against a running server: latencies, throughput, goodput"},
    {"model", bench_model, "one engine, no network: prefill and decode tokens/s"},
    {"grammar", bench_grammar, "constrained output: compile times, time per step"},
    {"kernels", bench_kernels, "every op on every backend against the machine's limits"},
    {"sampler", bench_sampler, "choosing a token over a large vocabulary: time per token"},
    {"transfer", bench_transfer, "KV handoffs between two processes: GB/s and latency"},
};
#define N_BENCHES (sizeof benches / sizeof benches[0])

int cmd_bench(int argc, char **argv)
{
    const char *name = argc > 1 ? argv[1] : "";
    for (size_t i = 0; i < N_BENCHES; i++)
        if (strcmp(name, benches[i].name) == 0)
            return benches[i].run(argc - 1, argv + 1);
    bool asked = strcmp(name, "--help") == 0 || strcmp(name, "-h") == 0;
    FILE *out = asked ? stdout : stderr;
    if (name[0] && !asked) {
        fprintf(stderr, "baton bench: unknown benchmark \"%s\" (see baton bench --help)\n", name);
        return 2;
    }
    fprintf(out, "usage: baton bench WHAT [options]\n\n");
    for (size_t i = 0; i < N_BENCHES; i++)
        fprintf(out, "  %-8s  %s\n", benches[i].name, benches[i].help);
    fprintf(out, "\nbaton bench WHAT --help shows its options.\n");
    return asked ? 0 : 2;
}
