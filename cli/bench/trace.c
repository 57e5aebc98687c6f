/* Reading traces: JSON lines and CSV, told apart by their first character. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/buf.h"
#include "base/clock.h"
#include "base/json.h"
#include "cli/bench/source.h"

#define TOKENS_MAX 16777216 /* of one request */
#define COLUMNS_MAX 64
#define AT_MAX_NS (INT64_C(366) * 86400 * NS_PER_S)

struct columns {
    int at, input, output; /* -1: none */
};

void bench_trace_fini(struct bench_trace *t)
{
    free(t->items);
    free(t->hashes);
    *t = (struct bench_trace){0};
}

static bool add_item(struct bench_trace *t, const struct bench_item *item)
{
    if (t->n == t->cap) {
        size_t cap = t->cap ? 2 * t->cap : 1024;
        struct bench_item *more = realloc(t->items, cap * sizeof *more);
        if (!more)
            return false;
        t->items = more;
        t->cap = cap;
    }
    t->items[t->n++] = *item;
    return true;
}

static bool add_hash(struct bench_trace *t, uint64_t hash)
{
    if (t->n_hashes == t->hashes_cap) {
        size_t cap = t->hashes_cap ? 2 * t->hashes_cap : 4096;
        uint64_t *more = realloc(t->hashes, cap * sizeof *more);
        if (!more)
            return false;
        t->hashes = more;
        t->hashes_cap = cap;
    }
    t->hashes[t->n_hashes++] = hash;
    return true;
}

static bool good_length(int64_t v)
{
    return v >= 1 && v <= TOKENS_MAX;
}

static enum status read_json_line(struct bench_trace *t, const char *line, size_t len,
                                  struct error *err)
{
    json *tree = NULL;
    enum status st = json_read(line, len, &tree, err);
    if (st != ST_OK)
        return st;
    double ms = json_as_number(json_get(tree, "timestamp"), -1);
    int64_t in = json_as_int(json_get(tree, "input_length"), 0);
    int64_t out = json_as_int(json_get(tree, "output_length"), 0);
    const json *hashes = json_get(tree, "hash_ids");
    struct bench_item item = {.input_tokens = (int32_t)in, .output_tokens = (int32_t)out};
    item.n_hashes = json_count(hashes);
    if (!(ms >= 0 && ms * 1e6 <= (double)AT_MAX_NS) || !good_length(in) || !good_length(out))
        st = err_set(err, ST_INVALID,
                     "expected timestamp in ms, input_length and output_length from 1 to %d",
                     TOKENS_MAX);
    item.at_ns = (int64_t)(ms * 1e6);
    for (size_t i = 0; st == ST_OK && i < item.n_hashes; i++)
        if (!add_hash(t, (uint64_t)json_as_int(json_at(hashes, i), 0)))
            st = err_set(err, ST_NO_MEMORY, "no memory");
    if (st == ST_OK && !add_item(t, &item))
        st = err_set(err, ST_NO_MEMORY, "no memory");
    json_free(tree);
    return st;
}

/* Cuts a line at its commas, in place; fields of these files have no quotes. */
static int cut(char *line, char *fields[COLUMNS_MAX])
{
    int n = 0;
    line[strcspn(line, "\r\n")] = '\0';
    for (char *at = line; at && n < COLUMNS_MAX; n++) {
        fields[n] = at;
        at = strchr(at, ',');
        if (at)
            *at++ = '\0';
    }
    return n;
}

static int find_column(char *const *fields, int n, const char *const names[4])
{
    for (int i = 0; i < n; i++)
        for (int k = 0; k < 4 && names[k]; k++)
            if (strcasecmp(fields[i], names[k]) == 0)
                return i;
    return -1;
}

static enum status read_header(char *line, struct columns *c, struct error *err)
{
    char *fields[COLUMNS_MAX];
    int n = cut(line, fields);
    c->at = find_column(fields, n, (const char *const[4]){"timestamp", "arrived_at"});
    c->input = find_column(fields, n,
                           (const char *const[4]){"ContextTokens", "num_prefill_tokens",
                                                  "Request tokens", "input_length"});
    c->output = find_column(fields, n,
                            (const char *const[4]){"GeneratedTokens", "num_decode_tokens",
                                                   "Response tokens", "output_length"});
    if (c->input < 0 || c->output < 0)
        return err_set(err, ST_INVALID,
                       "the first line names no columns of input and output tokens");
    return ST_OK;
}

/* "2023-11-16 18:15:46.6805900", or seconds. */
static bool read_time(const char *text, int64_t *ns)
{
    struct tm tm = {0};
    char *end;
    double s = strtod(text, &end);
    if (end != text && *end == '\0') {
        if (!(s >= 0 && s <= 1e10))
            return false;
        *ns = (int64_t)(s * 1e9);
        return true;
    }
    if (sscanf(text, "%4d-%2d-%2d %2d:%2d:%2d", &tm.tm_year, &tm.tm_mon, &tm.tm_mday, &tm.tm_hour,
               &tm.tm_min, &tm.tm_sec) != 6 ||
        tm.tm_year < 1970 || tm.tm_year > 2200)
        return false;
    tm.tm_year -= 1900;
    tm.tm_mon -= 1;
    const char *dot = strchr(text, '.');
    *ns = (int64_t)timegm(&tm) * NS_PER_S;
    *ns += dot ? (int64_t)(strtod(dot, NULL) * 1e9) : 0;
    return true;
}

static bool read_length(const char *text, int32_t *out)
{
    char *end;
    errno = 0;
    long v = strtol(text, &end, 10);
    *out = (int32_t)v;
    return end != text && *end == '\0' && errno == 0 && good_length(v);
}

static enum status read_csv_line(struct bench_trace *t, char *line, const struct columns *c,
                                 struct error *err)
{
    char *fields[COLUMNS_MAX];
    struct bench_item item = {0};
    int n = cut(line, fields);
    if (c->input >= n || c->output >= n || c->at >= n)
        return err_set(err, ST_INVALID, "too few columns");
    if (strcmp(fields[c->output], "0") == 0)
        return ST_OK; /* some traces record failures so */
    if (!read_length(fields[c->input], &item.input_tokens) ||
        !read_length(fields[c->output], &item.output_tokens))
        return err_set(err, ST_INVALID, "expected token counts from 1 to %d", TOKENS_MAX);
    if (c->at >= 0 && !read_time(fields[c->at], &item.at_ns))
        return err_set(err, ST_INVALID, "expected a time, got \"%.40s\"", fields[c->at]);
    return add_item(t, &item) ? ST_OK : err_set(err, ST_NO_MEMORY, "no memory");
}

static int by_time(const void *a, const void *b)
{
    const struct bench_item *x = a, *y = b;
    if (x->at_ns != y->at_ns)
        return x->at_ns < y->at_ns ? -1 : 1;
    return (x->hashes > y->hashes) - (x->hashes < y->hashes);
}

/* Sets what could only be set when all lines had been read. */
static enum status finish(const char *name, struct bench_trace *t, struct error *err)
{
    size_t at = 0;
    if (t->n == 0)
        return err_set(err, ST_INVALID, "%s: holds no requests", name);
    for (size_t i = 0; i < t->n; i++) {
        t->items[i].hashes = t->hashes ? t->hashes + at : NULL;
        at += t->items[i].n_hashes;
    }
    if (!t->timed)
        return ST_OK;
    qsort(t->items, t->n, sizeof *t->items, by_time);
    int64_t first = t->items[0].at_ns;
    for (size_t i = 0; i < t->n; i++)
        t->items[i].at_ns -= first;
    if (t->items[t->n - 1].at_ns > AT_MAX_NS)
        return err_set(err, ST_INVALID, "%s: spans more than a year", name);
    return ST_OK;
}

enum status bench_trace_parse(const char *name, const char *text, size_t len,
                              struct bench_trace *out, struct error *err)
{
    struct columns c = {-1, -1, -1};
    struct buf line = {0};
    enum status st = ST_OK;
    bool is_json = len > 0 && text[0] == '{';
    *out = (struct bench_trace){.timed = is_json};
    size_t number = 1;
    for (size_t at = 0; at < len && st == ST_OK; number++) {
        const char *end = memchr(text + at, '\n', len - at);
        size_t n = end ? (size_t)(end - text) - at : len - at;
        buf_clear(&line);
        buf_append(&line, text + at, n);
        at += n + 1;
        if (line.failed) {
            st = err_set(err, ST_NO_MEMORY, "no memory");
        } else if (strspn(line.data, " \t\r") == n) {
            continue;
        } else if (is_json) {
            st = read_json_line(out, line.data, n, err);
        } else if (c.input < 0) {
            st = read_header(line.data, &c, err);
            out->timed = c.at >= 0;
        } else {
            st = read_csv_line(out, line.data, &c, err);
        }
        if (st != ST_OK)
            err_prefix(err, "%s:%zu", name, number);
    }
    buf_fini(&line);
    if (st == ST_OK)
        st = finish(name, out, err);
    if (st != ST_OK)
        bench_trace_fini(out);
    return st;
}

enum status bench_trace_read(const char *path, struct bench_trace *out, struct error *err)
{
    struct buf text = {.max = BENCH_TRACE_BYTES_MAX};
    char chunk[65536];
    size_t n;
    FILE *f = fopen(path, "rb");
    if (!f)
        return err_set(err, ST_NOT_FOUND, "%s: %s", path, strerror(errno));
    while (!text.failed && (n = fread(chunk, 1, sizeof chunk, f)) > 0)
        buf_append(&text, chunk, n);
    enum status st = ST_OK;
    if (ferror(f))
        st = err_set(err, ST_IO, "%s: cannot be read", path);
    else if (text.failed)
        st = err_set(err, ST_INVALID, "%s: larger than %zu bytes", path, BENCH_TRACE_BYTES_MAX);
    fclose(f);
    if (st == ST_OK)
        st = bench_trace_parse(path, text.data ? text.data : "", text.len, out, err);
    buf_fini(&text);
    return st;
}
