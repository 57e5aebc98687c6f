#include <criterion/criterion.h>

#include <ctype.h>
#include <math.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/metrics.h"

Test(metrics, renders_exactly)
{
    struct metrics *m = metrics_create("node=\"p0\"");
    struct metric *a = metrics_counter(m, "baton_requests_total", "outcome=\"ok\"", "Requests.");
    struct metric *g = metrics_gauge(m, "baton_waiting", "", "A \\ and a\nline.");
    struct metric *b = metrics_counter(m, "baton_requests_total", "outcome=\"bad\"", "ignored");
    static const double bounds[] = {0.1, 1, 2.5};
    struct metric *h = metrics_histogram(m, "baton_seconds", "kind=\"x\"", "Time.", bounds, 3);
    metric_inc(a);
    metric_add(a, 2);
    metric_add(b, 0.5);
    metric_set(g, -3.25);
    metric_add(g, 1);
    metric_observe(h, 0.1);
    metric_observe(h, 2);
    metric_observe(h, 3);
    struct buf out = {0};
    metrics_render(m, &out);
    cr_assert_str_eq(out.data, "# HELP baton_requests_total Requests.\n"
                               "# TYPE baton_requests_total counter\n"
                               "baton_requests_total{node=\"p0\",outcome=\"ok\"} 3\n"
                               "baton_requests_total{node=\"p0\",outcome=\"bad\"} 0.5\n"
                               "# HELP baton_waiting A \\\\ and a\\nline.\n"
                               "# TYPE baton_waiting gauge\n"
                               "baton_waiting{node=\"p0\"} -2.25\n"
                               "# HELP baton_seconds Time.\n"
                               "# TYPE baton_seconds histogram\n"
                               "baton_seconds_bucket{node=\"p0\",kind=\"x\",le=\"0.1\"} 1\n"
                               "baton_seconds_bucket{node=\"p0\",kind=\"x\",le=\"1\"} 1\n"
                               "baton_seconds_bucket{node=\"p0\",kind=\"x\",le=\"2.5\"} 2\n"
                               "baton_seconds_bucket{node=\"p0\",kind=\"x\",le=\"+Inf\"} 3\n"
                               "baton_seconds_sum{node=\"p0\",kind=\"x\"} 5.1\n"
                               "baton_seconds_count{node=\"p0\",kind=\"x\"} 3\n");
    cr_assert_eq(metric_value(h), 3);
    buf_fini(&out);
    metrics_destroy(m);
    metrics_destroy(NULL);
}

Test(metrics, no_labels_means_no_braces)
{
    struct metrics *m = metrics_create(NULL);
    metric_set(metrics_gauge(m, "a", "", "h"), 1e300);
    metric_set(metrics_gauge(m, "b", "", "h"), NAN);
    metric_set(metrics_gauge(m, "c", "", "h"), -INFINITY);
    metric_set(metrics_gauge(m, "d", "", "h"), 0.1 + 0.2);
    struct buf out = {0};
    metrics_render(m, &out);
    cr_assert_not_null(strstr(out.data, "\na 1e+300\n"));
    cr_assert_not_null(strstr(out.data, "\nb NaN\n"));
    cr_assert_not_null(strstr(out.data, "\nc -Inf\n"));
    cr_assert_not_null(strstr(out.data, "\nd 0.30000000000000004\n"));
    buf_fini(&out);
    metrics_destroy(m);
}

Test(metrics, same_series_is_the_same_object)
{
    struct metrics *m = metrics_create("");
    struct metric *a = metrics_counter(m, "x_total", "k=\"1\"", "h");
    cr_assert_eq((void *)a, (void *)metrics_counter(m, "x_total", "k=\"1\"", "h"));
    cr_assert_neq((void *)a, (void *)metrics_counter(m, "x_total", "k=\"2\"", "h"));
    metrics_destroy(m);
}

Test(metrics, labels_are_escaped)
{
    struct buf out = {0};
    metrics_label(&out, "model", "a\"b\\c\nd");
    metrics_label(&out, "node", "p0");
    cr_assert_str_eq(out.data, "model=\"a\\\"b\\\\c\\nd\",node=\"p0\"");
    buf_fini(&out);
}

Test(metrics, a_counter_never_goes_back, .signal = SIGABRT)
{
    struct metrics *m = metrics_create("");
    metric_add(metrics_counter(m, "x_total", "", "h"), -1);
}

Test(metrics, one_name_one_kind, .signal = SIGABRT)
{
    struct metrics *m = metrics_create("");
    metrics_counter(m, "x_total", "", "h");
    metrics_gauge(m, "x_total", "k=\"v\"", "h");
}

/* A strict reader of the text format, version 0.0.4: names, label syntax and escapes, numbers; HELP
 * and TYPE once per family and before its samples; families in one piece; buckets cumulative and
 * ending in +Inf == _count. Returns the number of samples. */
static const char *skip_name(const char *s)
{
    cr_assert(isalpha((unsigned char)*s) || *s == '_' || *s == ':', "name at: %.30s", s);
    while (isalnum((unsigned char)*s) || *s == '_' || *s == ':')
        s++;
    return s;
}

static const char *skip_labels(const char *s)
{
    if (*s != '{')
        return s;
    do {
        s = skip_name(s + 1);
        cr_assert(s[0] == '=' && s[1] == '"', "label at: %.30s", s);
        for (s += 2; *s != '"'; s++) {
            cr_assert(*s != '\0' && *s != '\n');
            if (*s == '\\') {
                s++;
                cr_assert(*s == '\\' || *s == '"' || *s == 'n', "escape at: %.10s", s);
            }
        }
        s++;
    } while (*s == ',');
    cr_assert_eq(*s, '}', "labels end at: %.30s", s);
    return s + 1;
}

static int check_text(const char *text)
{
    char families[64][64], family[64] = "", kind[16] = "";
    size_t n_families = 0;
    int samples = 0;
    double cumulative = 0;
    for (const char *s = text; *s != '\0';) {
        const char *end = strchr(s, '\n');
        cr_assert_not_null(end, "the last line ends too");
        if (strncmp(s, "# HELP ", 7) == 0) {
            const char *stop = skip_name(s + 7);
            snprintf(family, sizeof family, "%.*s", (int)(stop - s - 7), s + 7);
            for (size_t i = 0; i < n_families; i++)
                cr_assert_str_neq(families[i], family, "one HELP for each family");
            memcpy(families[n_families++], family, sizeof family);
            s = end + 1;
            cr_assert_eq(strncmp(s, "# TYPE ", 7), 0);
            end = strchr(s, '\n');
            stop = skip_name(s + 7);
            cr_assert(strncmp(s + 7, family, strlen(family)) == 0 && *stop == ' ');
            snprintf(kind, sizeof kind, "%.*s", (int)(end - stop - 1), stop + 1);
        } else {
            const char *stop = skip_name(s), *suffix = s + strlen(family);
            cr_assert(strncmp(s, family, strlen(family)) == 0, "sample of another family: %.40s",
                      s);
            bool histogram = strcmp(kind, "histogram") == 0;
            cr_assert(histogram ? *suffix == '_' : suffix == stop);
            s = skip_labels(stop);
            cr_assert_eq(*s, ' ');
            char *number_end;
            double v = strtod(s + 1, &number_end);
            cr_assert_eq((const void *)number_end, (const void *)end, "number at: %.30s", s);
            if (histogram && strncmp(suffix, "_bucket", 7) == 0) {
                cr_assert_geq(v, cumulative, "buckets are cumulative");
                cumulative = v;
            } else if (histogram && strncmp(suffix, "_count", 6) == 0) {
                cr_assert_eq(v, cumulative, "+Inf is the count");
                cumulative = 0;
            }
            samples++;
        }
        s = end + 1;
    }
    return samples;
}

Test(metrics, a_parser_reads_it)
{
    struct metrics *m = metrics_create("node=\"d0\",role=\"decode\"");
    struct buf label = {0};
    metrics_label(&label, "model", "we\"ird\\na\nme");
    for (int i = 0; i < 5; i++) {
        char name[32];
        snprintf(name, sizeof name, "baton_h%d_seconds", i);
        struct metric *h =
            metrics_histogram(m, name, i % 2 ? label.data : "", "help",
                              i % 2 ? metrics_latency_bounds : metrics_step_bounds,
                              i % 2 ? metrics_latency_bounds_n : metrics_step_bounds_n);
        for (double v = 1e-6; v < 1000; v *= 1.7)
            metric_observe(h, v);
    }
    metrics_counter(m, "baton_c_total", label.data, "x\\y\nz");
    struct buf out = {0};
    metrics_render(m, &out);
    int samples = check_text(out.data);
    cr_assert_eq(samples, 5 * (19 + 3) + 1, "%d", samples);
    buf_fini(&out);
    buf_fini(&label);
    metrics_destroy(m);
}

struct load {
    struct metrics *m;
    struct metric *counter, *gauge, *histogram;
};

static void *hammer(void *arg)
{
    struct load *l = arg;
    for (int i = 0; i < 20000; i++) {
        metric_inc(l->counter);
        metric_add(l->gauge, i % 2 ? -0.5 : 0.5);
        metric_observe(l->histogram, i % 10);
    }
    /* Registering late is not what the header asks for, and still safe. */
    metrics_counter(l->m, "late_total", "", "h");
    return NULL;
}

Test(metrics, threads_lose_no_update, .timeout = 60)
{
    struct metrics *m = metrics_create("");
    static const double bounds[] = {1, 5};
    struct load l = {m, metrics_counter(m, "a_total", "", "h"), metrics_gauge(m, "b", "", "h"),
                     metrics_histogram(m, "c", "", "h", bounds, 2)};
    pthread_t t[3];
    for (int i = 0; i < 3; i++)
        pthread_create(&t[i], NULL, hammer, &l);
    for (int i = 0; i < 20; i++) {
        struct buf out = {0};
        metrics_render(m, &out);
        check_text(out.data);
        buf_fini(&out);
    }
    for (int i = 0; i < 3; i++)
        pthread_join(t[i], NULL);
    cr_assert_eq(metric_value(l.counter), 60000);
    cr_assert_eq(metric_value(l.gauge), 0);
    cr_assert_eq(metric_value(l.histogram), 60000);
    struct buf out = {0};
    metrics_render(m, &out);
    cr_assert_not_null(strstr(out.data, "c_bucket{le=\"1\"} 12000\n"));
    cr_assert_not_null(strstr(out.data, "c_sum 270000\n"));
    buf_fini(&out);
    metrics_destroy(m);
}
