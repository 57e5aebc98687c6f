/* Metrics: counters, gauges and histograms with fixed labels, rendered as Prometheus text (version
 * 0.0.4).
 *
 * Register everything at start (before other threads update or render); updates are relaxed
 * atomics, wait-free, from any thread. A series is {name, labels} with the labels given once as a
 * ready string
 * (`role="decode",state="free"`; may be ""). Registering the same series twice gives the same
 * object. Common labels (model, node, role) are set once for the registry and put on every series.
 */
#ifndef BASE_METRICS_H
#define BASE_METRICS_H

#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"

struct metrics;
struct metric;

struct metrics *metrics_create(const char *common_labels);
void metrics_destroy(struct metrics *m);
struct metric *metrics_counter(struct metrics *m, const char *name, const char *labels,
                               const char *help);
struct metric *metrics_gauge(struct metrics *m, const char *name, const char *labels,
                             const char *help);
/* `bounds`: ascending upper bounds, +Inf is implied; copied. */
struct metric *metrics_histogram(struct metrics *m, const char *name, const char *labels,
                                 const char *help, const double *bounds, size_t n_bounds);
void metric_add(struct metric *x, double v); /* counter or gauge; a counter never by a negative */
void metric_inc(struct metric *x);
void metric_set(struct metric *x, double v);     /* gauge */
void metric_observe(struct metric *x, double v); /* histogram */
double metric_value(const struct metric *x);     /* counter, gauge; a histogram's count */
/* HELP and TYPE once per family, families and series in order of registration. */
void metrics_render(struct metrics *m, struct buf *out);

/* Appends `name="value"`, escaped, after a comma where `out` holds labels already: how a label
 * string is built from a value that comes from outside. */
void metrics_label(struct buf *out, const char *name, const char *value);

/* Usual bounds in seconds: 100 us to 100 s, and the short ones of a step: 10 us to 10 s. */
extern const double metrics_latency_bounds[];
extern const size_t metrics_latency_bounds_n;
extern const double metrics_step_bounds[];
extern const size_t metrics_step_bounds_n;

#endif
