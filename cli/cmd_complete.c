/* `baton complete`: one streamed completion of a running server, to the terminal. */
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "base/flags.h"
#include "cli/commands.h"
#include "cli/oai.h"

struct options {
    const char *url, *key, *model, *prompt;
    int64_t max_tokens, seed, timeout_s;
    double temperature;
    bool timing, ignore_eos, has_temperature, has_seed;
};

struct times {
    int64_t start_ns, first_ns, last_ns;
    int64_t chunks, tokens;
};

static void write_body(const struct options *o, const char *model, struct buf *body)
{
    struct jw w = jw_begin(body);
    jw_obj(&w);
    jw_key(&w, "model");
    jw_str(&w, model);
    jw_key(&w, "prompt");
    jw_str(&w, o->prompt);
    jw_key(&w, "max_tokens");
    jw_int(&w, o->max_tokens);
    if (o->has_temperature) {
        jw_key(&w, "temperature");
        jw_real(&w, o->temperature);
    }
    if (o->has_seed) {
        jw_key(&w, "seed");
        jw_int(&w, o->seed);
    }
    if (o->ignore_eos) {
        jw_key(&w, "ignore_eos");
        jw_bool(&w, true);
    }
    jw_key(&w, "stream");
    jw_bool(&w, true);
    jw_key(&w, "stream_options");
    jw_raw(&w, "{\"include_usage\":true}");
    jw_end_obj(&w);
}

static enum status take_events(struct oai_stream *s, int64_t at_ns, struct times *t,
                               struct error *err)
{
    struct oai_event e;
    enum oai_result r;
    while ((r = oai_stream_next(s, &e)) != OAI_NONE) {
        if (r == OAI_BAD || e.error)
            return err_set(err, ST_PROTOCOL, "%.300s", e.error);
        if (e.has_token) {
            if (t->chunks++ == 0)
                t->first_ns = at_ns;
            t->last_ns = at_ns;
        }
        if (e.has_usage)
            t->tokens = e.completion_tokens;
        oai_print(e.text, e.text_len);
    }
    return ST_OK;
}

static enum status stream(struct http_client *c, struct oai_stream *s, struct times *t,
                          struct error *err)
{
    struct http_client_event ev;
    struct buf failure = {.max = OAI_BODY_MAX};
    enum status st = ST_OK;
    for (;;) {
        if (!http_client_poll(c, 1000, &ev))
            continue;
        if (ev.kind == HTTP_CLIENT_DATA && ev.status != 200)
            buf_append(&failure, ev.data, ev.len);
        else if (ev.kind == HTTP_CLIENT_DATA && st == ST_OK)
            st = oai_stream_feed(s, ev.data, ev.len) == ST_OK
                     ? take_events(s, ev.at_ns, t, err)
                     : err_set(err, ST_PROTOCOL, "an event is too large");
        if (ev.kind == HTTP_CLIENT_END)
            break;
    }
    if (st == ST_OK && ev.result != ST_OK)
        st = err_set(err, ev.result, "%s", ev.text);
    else if (st == ST_OK && ev.status != 200) {
        char text[300];
        oai_error_text(ev.status, &failure, text, sizeof text, NULL);
        st = err_set(err, ST_INVALID, "%s", text);
    } else if (st == ST_OK && !s->done) {
        st = err_set(err, ST_LINK, "the stream ended before [DONE]");
    }
    buf_fini(&failure);
    return st;
}

static void print_timing(const struct times *t)
{
    int64_t tokens = t->tokens > 0 ? t->tokens : t->chunks;
    double ttft = t->chunks ? (double)(t->first_ns - t->start_ns) / 1e6 : 0;
    double rest = (double)(t->last_ns - t->first_ns) / 1e6;
    printf("tokens %lld  TTFT %.1f ms  ITL %.2f ms (mean of %lld gaps)\n", (long long)tokens, ttft,
           t->chunks > 1 ? rest / (double)(t->chunks - 1) : 0.0,
           (long long)(t->chunks > 1 ? t->chunks - 1 : 0));
}

static enum status complete(const struct options *o, struct error *err)
{
    struct oai_server server;
    struct http_client *c = NULL;
    struct oai_stream s = {0};
    struct buf body = {0};
    struct times t = {0};
    enum status st = oai_server_init(&server, o->url, o->key, err);
    if (st == ST_OK)
        st = oai_server_find_model(&server, o->model, err);
    if (st == ST_OK)
        st = http_client_create(&c, err);
    if (st != ST_OK)
        return st;
    write_body(o, server.model, &body);
    struct http_client_request req = {.url = "/v1/completions",
                                      .body = body.data,
                                      .body_bytes = body.len,
                                      .timeout_ns = o->timeout_s * NS_PER_S};
    t.start_ns = clock_now_ns();
    st = oai_start(c, &server, &req, NULL, err);
    if (st == ST_OK)
        st = stream(c, &s, &t, err);
    if (t.chunks > 0)
        putchar('\n');
    if (st == ST_OK && o->timing)
        print_timing(&t);
    oai_stream_fini(&s);
    http_client_destroy(c);
    buf_fini(&body);
    return st;
}

int cmd_complete(int argc, char **argv)
{
    struct options o = {.url = "http://127.0.0.1:8000", .max_tokens = 64, .timeout_s = 600};
    struct flag table[] = {
        {"url", FLAG_STR, &o.url, "URL", "the server (http://127.0.0.1:8000)"},
        {"model", FLAG_STR, &o.model, "NAME", "its model (the first that it has)"},
        {"prompt", FLAG_STR, &o.prompt, "TEXT", "what to continue"},
        {"max-tokens", FLAG_INT, &o.max_tokens, "N", "stop after this many (64)", 1, 1 << 30},
        {"temperature", FLAG_REAL, &o.temperature, "T", "0: greedy (the server's default)", 0, 2},
        {"seed", FLAG_INT, &o.seed, "N", "of the draws (the server's choice)"},
        {"ignore-eos", FLAG_BOOL, &o.ignore_eos, NULL, "go on after the end of the text"},
        {"timing", FLAG_BOOL, &o.timing, NULL, "then print TTFT and ITL"},
        {"timeout", FLAG_INT, &o.timeout_s, "S", "give up after seconds (600)", 1, 86400},
        {"api-key", FLAG_STR, &o.key, "KEY", "sent as a bearer token"},
    };
    struct flags f = {.program = "baton complete",
                      .usage = "--prompt TEXT [options]",
                      .about = "Streams one completion of a running server.",
                      .table = table,
                      .n = sizeof table / sizeof table[0]};
    int rc = flags_parse(&f, argc, argv, NULL, 0, NULL);
    if (rc != 0)
        return rc == 1 ? 0 : rc;
    if (!o.prompt) {
        fprintf(stderr, "baton complete: expected --prompt TEXT (see baton complete --help)\n");
        return 2;
    }
    o.has_temperature = table[4].seen;
    o.has_seed = table[5].seen;
    struct error err = {0};
    if (complete(&o, &err) == ST_OK)
        return 0;
    fprintf(stderr, "baton complete: %s\n", err.text);
    return 1;
}
