#include "base/metrics.h"

#include <assert.h>
#include <math.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum kind { COUNTER, GAUGE, HISTOGRAM };

static const char *const kind_names[] = {"counter", "gauge", "histogram"};

/* The usual counter grows by whole numbers: those take one atomic addition. `real_bits` is a
 * double. */
struct metric {
    enum kind kind;
    char *labels;
    struct metric *next;
    _Atomic int64_t whole;
    _Atomic uint64_t real_bits; /* a histogram's sum */
    size_t n_bounds;
    double *bounds;
    _Atomic uint64_t *buckets; /* n_bounds + 1, the last one +Inf; not cumulative */
};

struct family {
    enum kind kind;
    char *name, *help;
    struct metric *first, *last;
    struct family *next;
};

struct metrics {
    pthread_mutex_t lock; /* registration against rendering */
    char *common;
    struct family *first, *last;
};

const double metrics_latency_bounds[] = {1e-4,  2.5e-4, 5e-4, 1e-3, 2.5e-3, 5e-3, 0.01,
                                         0.025, 0.05,   0.1,  0.25, 0.5,    1,    2.5,
                                         5,     10,     25,   50,   100};
const size_t metrics_latency_bounds_n = sizeof metrics_latency_bounds / sizeof(double);
const double metrics_step_bounds[] = {1e-5,   2.5e-5, 5e-5, 1e-4,  2.5e-4, 5e-4, 1e-3,
                                      2.5e-3, 5e-3,   0.01, 0.025, 0.05,   0.1,  0.25,
                                      0.5,    1,      2.5,  5,     10};
const size_t metrics_step_bounds_n = sizeof metrics_step_bounds / sizeof(double);

static double from_bits(uint64_t bits)
{
    double v;
    memcpy(&v, &bits, sizeof v);
    return v;
}

static uint64_t to_bits(double v)
{
    uint64_t bits;
    memcpy(&bits, &v, sizeof bits);
    return bits;
}

static char *copy_text(const char *s)
{
    char *copy = strdup(s);
    assert(copy != NULL);
    return copy;
}

static bool name_ok(const char *s)
{
    static const char first[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_:";
    static const char more[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_:0123456789";
    return *s != '\0' && strchr(first, *s) != NULL && s[strspn(s, more)] == '\0';
}

struct metrics *metrics_create(const char *common_labels)
{
    struct metrics *m = calloc(1, sizeof *m);
    if (m == NULL)
        return NULL;
    m->common = copy_text(common_labels != NULL ? common_labels : "");
    pthread_mutex_init(&m->lock, NULL);
    return m;
}

static void metric_destroy(struct metric *x)
{
    free(x->labels);
    free(x->bounds);
    free(x->buckets);
    free(x);
}

void metrics_destroy(struct metrics *m)
{
    if (m == NULL)
        return;
    for (struct family *f = m->first, *f_next; f != NULL; f = f_next) {
        f_next = f->next;
        for (struct metric *x = f->first, *x_next; x != NULL; x = x_next) {
            x_next = x->next;
            metric_destroy(x);
        }
        free(f->name);
        free(f->help);
        free(f);
    }
    pthread_mutex_destroy(&m->lock);
    free(m->common);
    free(m);
}

static struct family *family_get(struct metrics *m, enum kind kind, const char *name,
                                 const char *help)
{
    assert(name_ok(name));
    for (struct family *f = m->first; f != NULL; f = f->next) {
        if (strcmp(f->name, name) == 0) {
            assert(f->kind == kind);
            return f;
        }
    }
    struct family *f = calloc(1, sizeof *f);
    assert(f != NULL);
    *f = (struct family){.kind = kind, .name = copy_text(name), .help = copy_text(help)};
    if (m->last != NULL)
        m->last->next = f;
    else
        m->first = f;
    m->last = f;
    return f;
}

static void set_bounds(struct metric *x, const double *bounds, size_t n)
{
    for (size_t i = 0; i < n; i++)
        assert(isfinite(bounds[i]) && (i == 0 || bounds[i] > bounds[i - 1]));
    x->n_bounds = n;
    x->bounds = calloc(n + 1, sizeof *x->bounds);
    x->buckets = calloc(n + 1, sizeof *x->buckets);
    assert(x->bounds != NULL && x->buckets != NULL);
    if (n > 0)
        memcpy(x->bounds, bounds, n * sizeof *bounds);
}

/* The fresh object is complete before it is linked, and linked under the lock. */
static struct metric *series_get(struct metrics *m, struct family *f, const char *labels,
                                 const double *bounds, size_t n_bounds)
{
    for (struct metric *x = f->first; x != NULL; x = x->next)
        if (strcmp(x->labels, labels) == 0)
            return x;
    struct metric *x = calloc(1, sizeof *x);
    assert(x != NULL);
    x->kind = f->kind;
    x->labels = copy_text(labels);
    if (f->kind == HISTOGRAM)
        set_bounds(x, bounds, n_bounds);
    if (f->last != NULL)
        f->last->next = x;
    else
        f->first = x;
    f->last = x;
    return x;
}

struct metric *metrics_counter(struct metrics *m, const char *name, const char *labels,
                               const char *help)
{
    pthread_mutex_lock(&m->lock);
    struct metric *x = series_get(m, family_get(m, COUNTER, name, help), labels, NULL, 0);
    pthread_mutex_unlock(&m->lock);
    return x;
}

struct metric *metrics_gauge(struct metrics *m, const char *name, const char *labels,
                             const char *help)
{
    pthread_mutex_lock(&m->lock);
    struct metric *x = series_get(m, family_get(m, GAUGE, name, help), labels, NULL, 0);
    pthread_mutex_unlock(&m->lock);
    return x;
}

struct metric *metrics_histogram(struct metrics *m, const char *name, const char *labels,
                                 const char *help, const double *bounds, size_t n_bounds)
{
    pthread_mutex_lock(&m->lock);
    struct family *f = family_get(m, HISTOGRAM, name, help);
    struct metric *x = series_get(m, f, labels, bounds, n_bounds);
    pthread_mutex_unlock(&m->lock);
    return x;
}

static void add_real(_Atomic uint64_t *bits, double v)
{
    uint64_t old = atomic_load_explicit(bits, memory_order_relaxed);
    while (!atomic_compare_exchange_weak_explicit(bits, &old, to_bits(from_bits(old) + v),
                                                  memory_order_relaxed, memory_order_relaxed)) {
    }
}

void metric_add(struct metric *x, double v)
{
    assert(x->kind != HISTOGRAM && (x->kind != COUNTER || v >= 0));
    if (x->kind == COUNTER && v < 0x1p53 && v == (double)(int64_t)v)
        atomic_fetch_add_explicit(&x->whole, (int64_t)v, memory_order_relaxed);
    else
        add_real(&x->real_bits, v);
}

void metric_inc(struct metric *x)
{
    metric_add(x, 1);
}

void metric_set(struct metric *x, double v)
{
    assert(x->kind == GAUGE);
    atomic_store_explicit(&x->real_bits, to_bits(v), memory_order_relaxed);
}

void metric_observe(struct metric *x, double v)
{
    assert(x->kind == HISTOGRAM);
    size_t low = 0, high = x->n_bounds;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (v <= x->bounds[middle])
            high = middle;
        else
            low = middle + 1;
    }
    atomic_fetch_add_explicit(&x->buckets[low], 1, memory_order_relaxed);
    add_real(&x->real_bits, v);
}

double metric_value(const struct metric *x)
{
    if (x->kind == HISTOGRAM) {
        uint64_t count = 0;
        for (size_t i = 0; i <= x->n_bounds; i++)
            count += atomic_load_explicit(&x->buckets[i], memory_order_relaxed);
        return (double)count;
    }
    int64_t whole = atomic_load_explicit(&x->whole, memory_order_relaxed);
    return (double)whole + from_bits(atomic_load_explicit(&x->real_bits, memory_order_relaxed));
}

/* Shortest decimal that reads back as v. */
static const char *number(char out[32], double v)
{
    if (isnan(v))
        return "NaN";
    if (isinf(v))
        return v > 0 ? "+Inf" : "-Inf";
    for (int digits = 15; digits <= 17; digits++) {
        snprintf(out, 32, "%.*g", digits, v);
        if (strtod(out, NULL) == v)
            break;
    }
    return out;
}

static void put_series(struct buf *out, const struct metrics *m, const char *name,
                       const char *suffix, const char *labels, const char *le)
{
    buf_printf(out, "%s%s", name, suffix);
    const char *parts[] = {m->common, labels};
    char separator = '{';
    for (size_t i = 0; i < 2; i++) {
        if (parts[i][0] != '\0') {
            buf_printf(out, "%c%s", separator, parts[i]);
            separator = ',';
        }
    }
    if (le != NULL) {
        buf_printf(out, "%cle=\"%s\"", separator, le);
        separator = ',';
    }
    buf_puts(out, separator == ',' ? "} " : " ");
}

static void render_histogram(struct buf *out, const struct metrics *m, const char *name,
                             const struct metric *x)
{
    char text[32];
    uint64_t count = 0;
    double sum = from_bits(atomic_load_explicit(&x->real_bits, memory_order_relaxed));
    for (size_t i = 0; i <= x->n_bounds; i++) {
        count += atomic_load_explicit(&x->buckets[i], memory_order_relaxed);
        double bound = i < x->n_bounds ? x->bounds[i] : INFINITY;
        put_series(out, m, name, "_bucket", x->labels, number(text, bound));
        buf_printf(out, "%llu\n", (unsigned long long)count);
    }
    put_series(out, m, name, "_sum", x->labels, NULL);
    buf_printf(out, "%s\n", number(text, sum));
    put_series(out, m, name, "_count", x->labels, NULL);
    buf_printf(out, "%llu\n", (unsigned long long)count);
}

static void render_help(struct buf *out, const struct family *f)
{
    buf_printf(out, "# HELP %s ", f->name);
    for (const char *s = f->help; *s != '\0'; s++) {
        if (*s == '\\')
            buf_puts(out, "\\\\");
        else if (*s == '\n')
            buf_puts(out, "\\n");
        else
            buf_putc(out, *s);
    }
    buf_printf(out, "\n# TYPE %s %s\n", f->name, kind_names[f->kind]);
}

void metrics_render(struct metrics *m, struct buf *out)
{
    char text[32];
    pthread_mutex_lock(&m->lock);
    for (const struct family *f = m->first; f != NULL; f = f->next) {
        render_help(out, f);
        for (const struct metric *x = f->first; x != NULL; x = x->next) {
            if (f->kind == HISTOGRAM) {
                render_histogram(out, m, f->name, x);
            } else {
                put_series(out, m, f->name, "", x->labels, NULL);
                buf_printf(out, "%s\n", number(text, metric_value(x)));
            }
        }
    }
    pthread_mutex_unlock(&m->lock);
}

void metrics_label(struct buf *out, const char *name, const char *value)
{
    buf_printf(out, "%s%s=\"", out->len > 0 ? "," : "", name);
    for (; *value != '\0'; value++) {
        if (*value == '\\' || *value == '"')
            buf_printf(out, "\\%c", *value);
        else if (*value == '\n')
            buf_puts(out, "\\n");
        else
            buf_putc(out, *value);
    }
    buf_putc(out, '"');
}
