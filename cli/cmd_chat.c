/* `baton chat`: a conversation with a running server, streamed. At a terminal Ctrl-C stops the
 * answer and Ctrl-D ends; elsewhere each line of stdin is one turn. When the conversation has
 * outgrown the model's context its oldest turns are left out. */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/flags.h"
#include "cli/commands.h"
#include "cli/oai.h"

#define LINE_BYTES_MAX ((size_t)1 << 20)

struct turn {
    char *user, *answer;
};

struct chat {
    const char *url, *key, *model, *system;
    int64_t max_tokens, timeout_s;
    double temperature;
    bool has_temperature, tty;
    struct oai_server server;
    struct http_client *client;
    struct turn *turns; /* the last one is being answered */
    size_t n, cap;
    size_t first; /* oldest turn that is still sent */
    struct buf answer;
    char error_code[64];
};

static volatile sig_atomic_t stopped;

static void on_interrupt(int sig)
{
    (void)sig;
    stopped = 1;
}

static void put_message(struct jw *w, const char *role, const char *text)
{
    jw_obj(w);
    jw_key(w, "role");
    jw_str(w, role);
    jw_key(w, "content");
    jw_str(w, text);
    jw_end_obj(w);
}

static void write_body(const struct chat *c, struct buf *body)
{
    struct jw w = jw_begin(body);
    jw_obj(&w);
    jw_key(&w, "model");
    jw_str(&w, c->server.model);
    jw_key(&w, "messages");
    jw_arr(&w);
    if (c->system)
        put_message(&w, "system", c->system);
    for (size_t i = c->first; i < c->n; i++) {
        put_message(&w, "user", c->turns[i].user);
        if (c->turns[i].answer)
            put_message(&w, "assistant", c->turns[i].answer);
    }
    jw_end_arr(&w);
    if (c->max_tokens > 0) {
        jw_key(&w, "max_completion_tokens");
        jw_int(&w, c->max_tokens);
    }
    if (c->has_temperature) {
        jw_key(&w, "temperature");
        jw_real(&w, c->temperature);
    }
    jw_key(&w, "stream");
    jw_bool(&w, true);
    jw_end_obj(&w);
}

static enum status take_events(struct chat *c, struct oai_stream *s, struct error *err)
{
    struct oai_event e;
    enum oai_result r;
    while ((r = oai_stream_next(s, &e)) != OAI_NONE) {
        if (r == OAI_BAD || e.error)
            return err_set(err, ST_PROTOCOL, "%.300s", e.error);
        buf_append(&c->answer, e.text, e.text_len);
        oai_print(e.text, e.text_len);
    }
    return ST_OK;
}

/* Until the answer has ended; an interrupt cancels it, which the server sees as a disconnect. */
static enum status receive(struct chat *c, struct http_transfer *t, struct oai_stream *s,
                           struct error *err)
{
    struct http_client_event ev;
    struct buf failure = {.max = OAI_BODY_MAX};
    enum status st = ST_OK;
    bool cancelled = false;
    for (;;) {
        if (stopped && !cancelled) {
            http_client_cancel(c->client, t);
            cancelled = true;
        }
        if (!http_client_poll(c->client, 50, &ev))
            continue;
        if (ev.kind == HTTP_CLIENT_END)
            break;
        if (ev.kind != HTTP_CLIENT_DATA || st != ST_OK)
            continue;
        if (ev.status != 200)
            buf_append(&failure, ev.data, ev.len);
        else if (oai_stream_feed(s, ev.data, ev.len) != ST_OK)
            st = err_set(err, ST_PROTOCOL, "an event is too large");
        else
            st = take_events(c, s, err);
    }
    if (cancelled) {
        st = ST_CANCELLED;
    } else if (st == ST_OK && ev.result != ST_OK) {
        st = err_set(err, ev.result, "%s", ev.text);
    } else if (st == ST_OK && ev.status != 200) {
        char text[300];
        oai_error_text(ev.status, &failure, text, sizeof text, c->error_code);
        st = err_set(err, ST_INVALID, "%s", text);
    } else if (st == ST_OK && !s->done) {
        st = err_set(err, ST_LINK, "the stream ended before [DONE]");
    }
    buf_fini(&failure);
    return st;
}

static enum status ask_once(struct chat *c, struct error *err)
{
    struct buf body = {0};
    struct oai_stream s = {0};
    struct http_transfer *t;
    c->error_code[0] = '\0';
    buf_clear(&c->answer);
    buf_puts(&c->answer, "");
    write_body(c, &body);
    struct http_client_request req = {.url = "/v1/chat/completions",
                                      .body = body.data,
                                      .body_bytes = body.len,
                                      .timeout_ns = c->timeout_s * NS_PER_S};
    enum status st = oai_start(c->client, &c->server, &req, &t, err);
    if (st == ST_OK)
        st = receive(c, t, &s, err);
    oai_stream_fini(&s);
    buf_fini(&body);
    return st;
}

static enum status ask(struct chat *c, struct error *err)
{
    for (;;) {
        enum status st = ask_once(c, err);
        if (st != ST_INVALID || strcmp(c->error_code, "context_length_exceeded") != 0 ||
            c->first + 1 >= c->n)
            return st;
        c->first++;
        fprintf(stderr, "(the context is full: leaving out the oldest turn)\n");
    }
}

static enum status add_turn(struct chat *c, const char *text, struct error *err)
{
    if (c->n == c->cap) {
        size_t cap = c->cap ? 2 * c->cap : 16;
        struct turn *more = realloc(c->turns, cap * sizeof *more);
        if (!more)
            return err_set(err, ST_NO_MEMORY, "no memory for another turn");
        c->turns = more;
        c->cap = cap;
    }
    c->turns[c->n] = (struct turn){.user = strdup(text)};
    if (!c->turns[c->n].user)
        return err_set(err, ST_NO_MEMORY, "no memory for another turn");
    c->n++;
    return ST_OK;
}

static void drop_last_turn(struct chat *c)
{
    c->n--;
    free(c->turns[c->n].user);
    free(c->turns[c->n].answer);
    if (c->first > c->n)
        c->first = c->n;
}

/* One turn. A failed one is forgotten, so that it can be asked again. */
static enum status turn(struct chat *c, const char *text, struct error *err)
{
    enum status st = add_turn(c, text, err);
    if (st != ST_OK)
        return st;
    st = ask(c, err);
    putchar('\n');
    fflush(stdout);
    if (st == ST_OK || (st == ST_CANCELLED && c->answer.len > 0))
        c->turns[c->n - 1].answer = buf_take(&c->answer, NULL);
    else
        drop_last_turn(c);
    return st == ST_CANCELLED ? ST_OK : st;
}

/* A line without its end; false at the end of the input or an interrupt. */
static bool read_line(struct chat *c, char **line, size_t *cap)
{
    stopped = 0;
    if (c->tty) {
        printf("> ");
        fflush(stdout);
    }
    errno = 0;
    ssize_t n = getline(line, cap, stdin);
    if (n < 0) {
        if (c->tty)
            putchar('\n');
        return false;
    }
    (*line)[strcspn(*line, "\r\n")] = '\0';
    return true;
}

static enum status talk(struct chat *c, struct error *err)
{
    char *line = NULL;
    size_t cap = 0;
    enum status st = ST_OK;
    while (read_line(c, &line, &cap)) {
        if (strlen(line) > LINE_BYTES_MAX) {
            st = err_set(err, ST_INVALID, "a turn has at most %zu bytes", LINE_BYTES_MAX);
            break;
        }
        if (line[strspn(line, " \t")] == '\0')
            continue;
        st = turn(c, line, err);
        if (st != ST_OK && !c->tty)
            break;
        if (st != ST_OK)
            fprintf(stderr, "baton chat: %s\n", err->text);
        st = ST_OK;
        if (stopped && !c->tty)
            break;
    }
    free(line);
    return st;
}

static enum status chat(struct chat *c, struct error *err)
{
    struct sigaction act = {.sa_handler = on_interrupt}; /* no SA_RESTART: getline() ends */
    enum status st = oai_server_init(&c->server, c->url, c->key, err);
    if (st == ST_OK)
        st = oai_server_find_model(&c->server, c->model, err);
    if (st == ST_OK)
        st = http_client_create(&c->client, err);
    if (st != ST_OK)
        return st;
    c->tty = isatty(STDIN_FILENO) == 1;
    sigaction(SIGINT, &act, NULL);
    if (c->tty)
        printf("%s at %s. Ctrl-C stops an answer, Ctrl-D ends.\n", c->server.model, c->server.url);
    st = talk(c, err);
    while (c->n > 0)
        drop_last_turn(c);
    free(c->turns);
    buf_fini(&c->answer);
    http_client_destroy(c->client);
    return st;
}

int cmd_chat(int argc, char **argv)
{
    struct chat c = {.url = "http://127.0.0.1:8000", .timeout_s = 600};
    struct flag table[] = {
        {"url", FLAG_STR, &c.url, "URL", "the server (http://127.0.0.1:8000)"},
        {"model", FLAG_STR, &c.model, "NAME", "its model (the first that it has)"},
        {"system", FLAG_STR, &c.system, "TEXT", "the system message"},
        {"max-tokens", FLAG_INT, &c.max_tokens, "N", "of an answer (the server's default)", 1,
         1 << 30},
        {"temperature", FLAG_REAL, &c.temperature, "T", "0: greedy (the server's default)", 0, 2},
        {"timeout", FLAG_INT, &c.timeout_s, "S", "of an answer (600)", 1, 86400},
        {"api-key", FLAG_STR, &c.key, "KEY", "sent as a bearer token"},
    };
    struct flags f = {.program = "baton chat",
                      .usage = "[options]",
                      .about = "Talks with a running server. Ctrl-C stops an answer, Ctrl-D ends; "
                               "a pipe on stdin is one turn per line.",
                      .table = table,
                      .n = sizeof table / sizeof table[0]};
    int rc = flags_parse(&f, argc, argv, NULL, 0, NULL);
    if (rc != 0)
        return rc == 1 ? 0 : rc;
    c.has_temperature = table[4].seen;
    struct error err = {0};
    if (chat(&c, &err) == ST_OK)
        return 0;
    fprintf(stderr, "baton chat: %s\n", err.text);
    return 1;
}
