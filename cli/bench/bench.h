/* The benchmarks of `baton bench`: each is a command of its own, with argv[0] its name, as in
 * cli/commands.h. All print a table, and one JSON object with --json FILE. Thread: main. */
#ifndef CLI_BENCH_BENCH_H
#define CLI_BENCH_BENCH_H

int bench_serve(int argc, char **argv);
int bench_model(int argc, char **argv);
int bench_grammar(int argc, char **argv);
int bench_kernels(int argc, char **argv);
int bench_sampler(int argc, char **argv);
int bench_transfer(int argc, char **argv);

#endif
