#include "cli/bench/load.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/clock.h"

#define FAILED_BODY_MAX ((size_t)64 << 10)
#define DEAD_AFTER 100 /* requests in a row that found nobody listening */

/* One request on its way. */
struct flight {
    struct bench_record *record;
    struct oai_stream stream;
    struct buf failed_body;
    struct http_transfer *transfer;
    struct flight *prev, *next;
};

struct runner {
    const struct bench_load *load;
    struct bench_log *log;
    struct http_client *client;
    struct flight *flights;
    size_t running;
    size_t unconnected; /* in a row */
    bool more, stopping;
    struct bench_item item; /* the next, when `more` */
    int64_t shown_ns;
};

static volatile sig_atomic_t interrupted;

static void on_interrupt(int sig)
{
    (void)sig;
    interrupted = 1;
}

/* ---- records ---- */

static struct bench_record *add_record(struct bench_log *log)
{
    if (log->n == log->cap) {
        size_t cap = log->cap ? 2 * log->cap : 256;
        struct bench_record **more = realloc(log->records, cap * sizeof *more);
        if (!more)
            return NULL;
        log->records = more;
        log->cap = cap;
    }
    struct bench_record *r = calloc(1, sizeof *r);
    if (r) {
        r->index = log->n;
        log->records[log->n++] = r;
    }
    return r;
}

void bench_log_fini(struct bench_log *log)
{
    for (size_t i = 0; i < log->n; i++) {
        free(log->records[i]->gaps_ns);
        buf_fini(&log->records[i]->text);
        free(log->records[i]);
    }
    free(log->records);
    *log = (struct bench_log){0};
}

static void fail(struct bench_record *r, const char *kind, const char *detail)
{
    if (r->failure[0])
        return; /* the first reason is the reason */
    snprintf(r->failure, sizeof r->failure, "%s", kind);
    snprintf(r->detail, sizeof r->detail, "%s", detail);
    for (char *at = r->detail; *at; at++)
        if ((unsigned char)*at < ' ')
            *at = ' ';
}

static void note_token(struct bench_record *r, int64_t at_ns)
{
    if (r->chunks++ == 0) {
        r->first_ns = r->last_ns = at_ns;
        return;
    }
    if (r->n_gaps == r->gaps_cap) {
        size_t cap = r->gaps_cap ? 2 * r->gaps_cap : 64;
        int64_t *more = realloc(r->gaps_ns, cap * sizeof *more);
        if (!more) {
            fail(r, "no_memory", "no memory for the record");
            return;
        }
        r->gaps_ns = more;
        r->gaps_cap = cap;
    }
    r->gaps_ns[r->n_gaps++] = at_ns - r->last_ns;
    r->last_ns = at_ns;
}

/* ---- sending ---- */

static void put_number(struct jw *w, const char *key, double v)
{
    jw_key(w, key);
    jw_real(w, v);
}

static void write_body(const struct bench_load *l, const struct bench_item *item, size_t index,
                       struct buf *body)
{
    struct jw w = jw_begin(body);
    jw_obj(&w);
    jw_key(&w, "model");
    jw_str(&w, l->server->model);
    bench_prompts_put(l->prompts, item, index, &w);
    jw_key(&w, l->prompts->chat ? "max_completion_tokens" : "max_tokens");
    jw_int(&w, item->output_tokens);
    put_number(&w, "temperature", l->temperature);
    if (l->seed >= 0) {
        jw_key(&w, "seed");
        jw_int(&w, l->seed + (int64_t)index);
    }
    if (l->ignore_eos) {
        jw_key(&w, "ignore_eos");
        jw_bool(&w, true);
    }
    jw_key(&w, "stream");
    jw_bool(&w, true);
    jw_key(&w, "stream_options");
    jw_raw(&w, "{\"include_usage\":true}");
    jw_end_obj(&w);
}

static enum status send_next(struct runner *run, struct error *err)
{
    const struct bench_load *l = run->load;
    struct flight *f = calloc(1, sizeof *f);
    struct bench_record *r = f ? add_record(run->log) : NULL;
    struct buf body = {0};
    if (!r) {
        free(f);
        return err_set(err, ST_NO_MEMORY, "no memory for another request");
    }
    f->record = r;
    f->failed_body.max = FAILED_BODY_MAX;
    write_body(l, &run->item, r->index, &body);
    int64_t now = clock_now_ns();
    r->start_ns = l->concurrency ? now : run->log->begin_ns + run->item.at_ns;
    r->asked_tokens = run->item.output_tokens;
    if (now - r->start_ns > run->log->lag_max_ns)
        run->log->lag_max_ns = now - r->start_ns;
    struct http_client_request req = {.url = l->prompts->chat ? "/v1/chat/completions"
                                                              : "/v1/completions",
                                      .body = body.data,
                                      .body_bytes = body.len,
                                      .timeout_ns = l->timeout_ns,
                                      .user = f};
    enum status st = oai_start(run->client, l->server, &req, &f->transfer, err);
    buf_fini(&body);
    if (st != ST_OK) {
        fail(r, "no_request", "could not be made");
        free(f);
        return st;
    }
    f->next = run->flights;
    if (f->next)
        f->next->prev = f;
    run->flights = f;
    if (++run->running > run->log->running_max)
        run->log->running_max = run->running;
    run->more = bench_source_next(l->source, &run->item);
    return ST_OK;
}

/* ---- answers ---- */

static void take_events(struct runner *run, struct flight *f, int64_t at_ns)
{
    struct bench_record *r = f->record;
    struct oai_event e;
    enum oai_result got;
    while ((got = oai_stream_next(&f->stream, &e)) != OAI_NONE) {
        if (got == OAI_BAD || e.error) {
            fail(r, got == OAI_BAD ? "malformed" : "server_error", e.error);
            continue;
        }
        if (e.has_token)
            note_token(r, at_ns);
        if (run->load->keep_text)
            buf_append(&r->text, e.text, e.text_len);
        if (e.has_usage) {
            r->has_usage = true;
            r->input_tokens = e.prompt_tokens;
            r->output_tokens = e.completion_tokens;
            r->cached_tokens = e.cached_tokens;
        }
        if (got == OAI_DONE)
            r->end_ns = at_ns;
    }
}

static void judge_end(struct flight *f, const struct http_client_event *ev)
{
    struct bench_record *r = f->record;
    char text[256], kind[24];
    if (ev->result == ST_CANCELLED) {
        r->interrupted = true;
    } else if (ev->status != 0 && ev->status != 200) {
        snprintf(kind, sizeof kind, "http_%d", ev->status);
        oai_error_text(ev->status, &f->failed_body, text, sizeof text, NULL);
        fail(r, kind, text);
    } else if (ev->result == ST_DEADLINE) {
        fail(r, "timeout", ev->text);
    } else if (ev->result != ST_OK) {
        fail(r, ev->status == 0 ? "connection" : "cut_off", ev->text);
    } else if (!f->stream.done) {
        fail(r, "cut_off", "the stream ended before [DONE]");
    } else if (r->chunks == 0) {
        fail(r, "no_tokens", "the stream brought no token");
    }
    if (r->end_ns == 0)
        r->end_ns = ev->at_ns;
    if (!r->has_usage)
        r->output_tokens = r->chunks;
    r->ended = true;
}

static void end_flight(struct runner *run, struct flight *f, const struct http_client_event *ev)
{
    judge_end(f, ev);
    run->unconnected = strcmp(f->record->failure, "connection") == 0 ? run->unconnected + 1 : 0;
    if (f->record->end_ns > run->log->end_ns)
        run->log->end_ns = f->record->end_ns;
    if (f->next)
        f->next->prev = f->prev;
    *(f->prev ? &f->prev->next : &run->flights) = f->next;
    oai_stream_fini(&f->stream);
    buf_fini(&f->failed_body);
    free(f);
    run->running--;
}

static void on_event(struct runner *run, const struct http_client_event *ev)
{
    struct flight *f = ev->user;
    if (ev->kind == HTTP_CLIENT_END) {
        end_flight(run, f, ev);
    } else if (ev->kind == HTTP_CLIENT_DATA && ev->status != 200) {
        buf_append(&f->failed_body, ev->data, ev->len);
    } else if (ev->kind == HTTP_CLIENT_DATA) {
        if (oai_stream_feed(&f->stream, ev->data, ev->len) == ST_OK)
            take_events(run, f, ev->at_ns);
        else
            fail(f->record, "malformed", "an event is too large");
    }
}

/* ---- the run ---- */

/* Sends what is due; *wait_ns is until the next is. */
static enum status send_due(struct runner *run, int64_t *wait_ns, struct error *err)
{
    const struct bench_load *l = run->load;
    *wait_ns = 200 * NS_PER_MS;
    while (run->more && !run->stopping) {
        int64_t now = clock_now_ns() - run->log->begin_ns;
        if (l->duration_ns > 0 && (now >= l->duration_ns || run->item.at_ns >= l->duration_ns)) {
            run->more = false;
        } else if (l->concurrency ? run->running >= l->concurrency : run->item.at_ns > now) {
            if (!l->concurrency && run->item.at_ns - now < *wait_ns)
                *wait_ns = run->item.at_ns - now;
            return ST_OK;
        } else {
            enum status st = send_next(run, err);
            if (st != ST_OK)
                return st;
        }
    }
    return ST_OK;
}

static void show_progress(struct runner *run)
{
    int64_t now = clock_now_ns();
    if (!run->load->progress || now - run->shown_ns < NS_PER_S / 2)
        return;
    run->shown_ns = now;
    fprintf(stderr, "\r%.0f s: %zu sent, %zu running  ", (double)(now - run->log->begin_ns) / 1e9,
            run->log->n, run->running);
}

static void stop(struct runner *run)
{
    run->stopping = true;
    run->more = false;
    for (struct flight *f = run->flights; f; f = f->next)
        http_client_cancel(run->client, f->transfer);
}

static enum status loop(struct runner *run, struct error *err)
{
    struct http_client_event ev;
    enum status st = ST_OK;
    while (run->more || run->running > 0) {
        int64_t wait_ns = 0;
        if ((interrupted || run->unconnected >= DEAD_AFTER) && !run->stopping)
            stop(run);
        enum status sent = run->stopping ? ST_OK : send_due(run, &wait_ns, err);
        if (sent != ST_OK) {
            st = sent;
            stop(run);
        }
        if (run->running == 0 && !run->more)
            break;
        if (http_client_poll(run->client, (int)(wait_ns / NS_PER_MS), &ev))
            on_event(run, &ev);
        show_progress(run);
    }
    if (run->load->progress)
        fprintf(stderr, "\r%40s\r", "");
    return st;
}

/* Every request has a socket of its own. */
static void raise_descriptors(void)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
        limit.rlim_cur = limit.rlim_max;
        setrlimit(RLIMIT_NOFILE, &limit);
    }
}

enum status bench_load_run(const struct bench_load *load, struct bench_log *log, struct error *err)
{
    struct runner run = {.load = load, .log = log};
    struct sigaction act = {.sa_handler = on_interrupt, .sa_flags = (int)SA_RESETHAND}, before;
    *log = (struct bench_log){0};
    enum status st = http_client_create(&run.client, err);
    if (st != ST_OK)
        return st;
    raise_descriptors();
    interrupted = 0;
    sigaction(SIGINT, &act, &before);
    log->begin_ns = log->end_ns = clock_now_ns();
    run.more = bench_source_next(load->source, &run.item);
    st = loop(&run, err);
    sigaction(SIGINT, &before, NULL);
    http_client_destroy(run.client);
    return st;
}
