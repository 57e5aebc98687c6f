/* What stands at the head of every result: the command line, the revision, the machine, and what
 * the machine can do at most, measured in the same run.
 *
 * Thread: one. facts_probe() takes kernels_probe_bytes() of memory for a moment and keeps all given
 * threads busy for half a second to some three (kernels/probe.h); run it before and after what is
 * measured, never during. The memory is given back before it returns, but counts in the peak of the
 * process: "read_bytes".
 */
#ifndef CLI_FACTS_H
#define CLI_FACTS_H

#include <stdbool.h>

#include "base/json.h"
#include "base/status.h"
#include "kernels/bench.h"

struct facts_machine {
    char cpu[128], system[128];
    const char *body; /* the kernels that "auto" takes */
    long cores;       /* that this process may use */
    double memory_gbytes;
};

void facts_machine_read(struct facts_machine *m);
/* The limits of `threads` threads (0: all cores). ST_NO_MEMORY. */
enum status facts_probe(int threads, struct kernels_probe *out, struct error *err);
/* The second one of a benchmark, which has its rows by then: `out`, or, where there is no memory,
 * NULL and a line on stderr. */
const struct kernels_probe *facts_probe_after(int threads, struct kernels_probe *out);

/* Writes "command", "version", "revision" and "date" into an open object; `program` stands for
 * argv[0]: "baton bench serve". */
void facts_put_run(struct jw *w, const char *program, int argc, char **argv);
/* Writes "probe": {...}: the machine and, where `probe` is not NULL, its limits with `threads`. */
void facts_put_probe(struct jw *w, const struct kernels_probe *probe, int threads);
/* The same where both the start and the end of what was measured were (else NULL): "probe" has the
 * better figures, which is what the limits of rows are; "probe_before" and "probe_after" have what
 * was found, or are null. */
void facts_put_probes(struct jw *w, const struct kernels_probe *before,
                      const struct kernels_probe *after, int threads);
/* What the figures mean: pairs of name and formula, {NULL, NULL} last. Writes "formulas": {...};
 * prints a line for each. */
void facts_put_formulas(struct jw *w, const char *const (*formulas)[2]);
void facts_print_formulas(const char *const (*formulas)[2]);
/* Writes the finished text and a newline to `path` ("-": stdout), replacing it whole. */
enum status facts_write_file(const char *path, const struct buf *text, struct error *err);

#endif
